//! What is stored, held against what writers sent and heard: nothing acknowledged is missing, nothing
//! is half there, and nothing is there that was not sent.

use std::collections::BTreeMap;

use sea_orm::{FromQueryResult, Statement};

use super::{
    caller::Outcome,
    load::{ORGANIZATIONS, Recorded},
};
use crate::harness::Database;

/// An organization as it is stored.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Row {
    pub id: i64,
    pub version: i64,
    pub name: String,
    pub subscription_id: Option<String>,
    pub handshake: Option<String>,
    pub handshake_version: i64,
}

/// An entry of the change log, as it is stored.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Entry {
    pub version: i64,
    pub request_id: String,
    pub name: String,
    pub subscription_id: Option<String>,
    pub handshake_version: i64,
}

/// What a database holds of one organization.
#[derive(Clone, Debug)]
pub struct Stored {
    pub row: Row,
    pub entries: Vec<Entry>,
}

/// Reads what a database holds, past the service.
pub async fn stored(database: &Database, organizations: [i64; 2]) -> Vec<Stored> {
    let connection = database.connect().await;
    let backend = sea_orm::ConnectionTrait::get_database_backend(&connection);
    let mut stored = Vec::new();
    for id in organizations {
        let row = format!("SELECT * FROM organizations WHERE id = {id}");
        let row = Row::find_by_statement(Statement::from_string(backend, row));
        let entries = format!(
            "SELECT * FROM organization_changes WHERE organization_id = {id} ORDER BY version"
        );
        let entries = Entry::find_by_statement(Statement::from_string(backend, entries));
        stored.push(Stored {
            row: row.one(&connection).await.unwrap().unwrap(),
            entries: entries.all(&connection).await.unwrap(),
        });
    }
    connection.close().await.unwrap();
    stored
}

/// All that is wrong; nothing, if all is well.
pub fn violations(stored: &[Stored], recorded: &[Recorded]) -> Vec<String> {
    let mut sent: BTreeMap<&str, &Recorded> =
        recorded.iter().map(|recorded| (recorded.write.id.as_str(), recorded)).collect();
    assert_eq!(sent.len(), recorded.len(), "every request has an id of its own");
    let mut violations = Vec::new();
    for Stored { row, entries } in stored {
        let id = row.id;
        let mut handshake = None;
        for (before, entry) in entries.iter().zip(entries.iter().skip(1)) {
            let at = format!("organization {id}, version {}", entry.version);
            if entry.version != before.version + 1 {
                violations.push(format!("{at}: follows version {}", before.version));
            }
            let Some(Recorded { write, outcome }) = sent.remove(entry.request_id.as_str()) else {
                violations.push(format!("{at}: {} was not sent, or is twice", entry.request_id));
                continue;
            };
            match outcome {
                Outcome::Done(version, _) if *version == entry.version => {}
                Outcome::Unknown(_) => {}
                other => violations.push(format!("{at}: its writer was told {other:?}")),
            }
            if write.version.is_some_and(|version| version != before.version) {
                violations.push(format!("{at}: was for version {:?}", write.version));
            }
            if write.handshake.is_some() {
                handshake.clone_from(&write.handshake);
            }
            let expected = Entry {
                version: entry.version,
                request_id: entry.request_id.clone(),
                name: write.name.clone().unwrap_or_else(|| before.name.clone()),
                subscription_id: write
                    .subscription_id
                    .clone()
                    .or_else(|| before.subscription_id.clone()),
                handshake_version: match write.handshake {
                    Some(_) => entry.version,
                    None => before.handshake_version,
                },
            };
            if id != write.organization || values(&expected) != values(entry) {
                violations.push(format!("{at}: is {entry:?}, not {expected:?}"));
            }
        }
        let last = entries.last().unwrap();
        let of_row = (&row.name, &row.subscription_id, row.handshake_version);
        if row.version != last.version || of_row != values(last) || row.handshake != handshake {
            violations.push(format!("{row:?}, but the last entry is {last:?}, and {handshake:?}"));
        }
    }
    // Of what is left no entry is there.
    let lost = sent.into_values().filter(|left| matches!(left.outcome, Outcome::Done(..)));
    violations.extend(lost.map(|lost| format!("lost: {lost:?}")));
    violations
}

fn values(entry: &Entry) -> (&String, &Option<String>, i64) {
    (&entry.name, &entry.subscription_id, entry.handshake_version)
}

/// Holds what is stored against what was sent, and prints how much of each there was. Answers how
/// often each outcome was.
pub async fn assert_kept(database: &Database, recorded: &[Recorded]) -> BTreeMap<String, usize> {
    let stored = stored(database, ORGANIZATIONS).await;
    let violations = violations(&stored, recorded);
    let mut outcomes = BTreeMap::new();
    for recorded in recorded {
        *outcomes.entry(recorded.outcome.label().to_owned()).or_default() += 1;
    }
    let acknowledged = outcomes.get("done").copied().unwrap_or_default();
    let entries: usize = stored.iter().map(|stored| stored.entries.len() - 1).sum();
    eprintln!(
        "{}: {acknowledged} updates acknowledged, {entries} stored, {} violations; {outcomes:?}",
        database.kind(),
        violations.len(),
    );
    assert!(violations.is_empty(), "{violations:#?}");
    outcomes
}
