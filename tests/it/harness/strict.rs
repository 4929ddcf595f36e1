//! A PostgreSQL that is as strict with the service as a distributed engine: serializable by default, and
//! with a plain role that may not take advisory locks. It logs every statement, and the log is searched
//! for what such engines refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, TransactionTrait};

use super::postgres::Cluster;

/// The variable by which a test process is told to use a strict cluster that runs already: the URL of
/// its superuser.
pub const VARIABLE: &str = "TEST_STRICT_POSTGRES";

/// The variable by which a test process is told which major version the cluster must have.
const VERSION: &str = "TEST_POSTGRES_VERSION";

/// The role that the service connects as. Tests look on as the superuser.
const ROLE: &str = "orgd";

const SETTINGS: [&str; 5] = [
    "max_connections=300",
    "default_transaction_isolation=serializable",
    "log_statement=all",
    // Values may have any words.
    "log_parameter_max_length=0",
    // The session and the role.
    "log_line_prefix=%c|%u|",
];

/// What the role may not do, and what observers need in order not to be in its way.
const SETUP: [&str; 6] = [
    "CREATE ROLE orgd LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE",
    "DO $$ DECLARE taken regprocedure; BEGIN \
       FOR taken IN SELECT oid FROM pg_proc WHERE proname LIKE '%advisory%' LOOP \
         EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', taken); \
       END LOOP; END $$",
    // As if it had always been so: else a dump would repeat it, which the role could not restore.
    "SET allow_system_table_mods = on",
    "INSERT INTO pg_init_privs SELECT oid, 'pg_proc'::regclass, 0, 'i', proacl FROM pg_proc \
       WHERE proname LIKE '%advisory%'",
    "ALTER ROLE postgres SET default_transaction_isolation = 'read committed'",
    // Also the rows of tables that a test has made.
    "GRANT pg_read_all_data, pg_write_all_data TO orgd",
];

/// What at least one distributed engine that speaks PostgreSQL's protocol refuses, does without effect,
/// or does at the cost of a global lock.
const REFUSED: [&str; 22] = [
    "SAVEPOINT",
    "FOR SHARE",
    "FOR UPDATE",
    "FOR NO KEY UPDATE",
    "LOCK TABLE",
    "TRIGGER",
    "CREATE FUNCTION",
    "CREATE RULE",
    "LISTEN",
    "NOTIFY",
    "PG_NOTIFY",
    "ADVISORY",
    "SEQUENCE",
    "SERIAL",
    "DEFERRABLE",
    "TEMP",
    "TEMPORARY",
    "PREPARE TRANSACTION",
    "CURSOR",
    "COPY",
    "CTID",
    "EXTENSION",
];

/// The URL of the cluster that this process was told to use.
pub fn given() -> Option<String> {
    let url = std::env::var_os(VARIABLE)?;
    Some(url.into_string().unwrap())
}

/// Starts a strict cluster. What it has in `template1`, each of its databases has.
pub async fn start() -> Cluster {
    let cluster = Cluster::start(&SETTINGS);
    let template = sea_orm::Database::connect(format!("{}/template1", cluster.url)).await.unwrap();
    check_version(&template).await;
    // On one connection, for whose time a setting holds.
    let transaction = template.begin().await.unwrap();
    for statement in SETUP {
        transaction.execute_unprepared(statement).await.unwrap();
    }
    transaction.commit().await.unwrap();
    template.close().await.unwrap();
    cluster
}

/// Else the run would say nothing of the version that it is meant for.
async fn check_version(connection: &DatabaseConnection) {
    let ask = "SELECT current_setting('server_version_num')::int / 10000 AS version";
    let ask = Statement::from_string(connection.get_database_backend(), ask);
    let row = connection.query_one_raw(ask).await.unwrap().unwrap();
    let version: i32 = row.try_get("", "version").unwrap();
    eprintln!("a strict PostgreSQL {version}");
    if let Some(told) = std::env::var_os(VERSION) {
        assert_eq!(told.to_str(), Some(version.to_string().as_str()), "{VERSION}");
    }
}

/// The superuser's URL with the service's role in its place.
pub fn url_of_role(superuser_url: &str) -> String {
    superuser_url.replacen("postgres@", &format!("{ROLE}@"), 1)
}

/// One statement of the service's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Logged {
    session: String,
    text: String,
}

/// The statements that a strict cluster was sent by the service, in the order of the log.
pub struct StatementLog(Vec<Logged>);

impl StatementLog {
    /// Reads the log of the cluster that `observer`, a superuser, is connected to.
    pub async fn read(observer: &DatabaseConnection) -> Self {
        let ask = Statement::from_string(
            observer.get_database_backend(),
            "SELECT current_setting('data_directory') AS folder",
        );
        let row = observer.query_one_raw(ask).await.unwrap().unwrap();
        let data: String = row.try_get("", "folder").unwrap();
        let log = Path::new(&data).parent().unwrap().join("log");
        Self::parse(&String::from_utf8_lossy(&fs::read(log).unwrap()))
    }

    fn parse(log: &str) -> Self {
        let mut statements = Vec::new();
        // A statement's further lines begin with a tab.
        for entry in log.replace("\n\t", " ").lines() {
            let mut cells = entry.splitn(3, '|');
            let cells = [(); 3].map(|()| cells.next().unwrap_or_default());
            let [session, role, text] = cells;
            if role != ROLE {
                continue;
            }
            let Some(text) = text.strip_prefix("LOG:  ") else { continue };
            let is_statement = text.starts_with("statement: ") || text.starts_with("execute ");
            if let (true, Some((_, text))) = (is_statement, text.split_once(": ")) {
                statements.push(Logged { session: session.to_owned(), text: text.to_owned() });
            }
        }
        Self(statements)
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The statements that differ, by their words alone.
    pub fn distinct(&self) -> BTreeSet<&str> {
        self.0.iter().map(|logged| logged.text.as_str()).collect()
    }

    /// The statements that do not name the columns that they answer: while they are kept prepared, a
    /// column that is added breaks them. `COUNT(*)` answers one, whatever the table has, and a product is no column.
    pub fn without_names(&self) -> BTreeSet<&str> {
        let has_star = |text: &&str| {
            let outside = text.split(['"', '\'']).step_by(2).collect::<String>();
            let outside = outside.to_ascii_uppercase();
            let mut before = outside.rsplit('*').skip(1).map(str::trim_end);
            before
                .any(|text| ["SELECT", "RETURNING", ",", "."].iter().any(|end| text.ends_with(end)))
        };
        self.distinct().into_iter().filter(has_star).collect()
    }

    /// The statements on orgd's tables that are not among these texts, which are no steps of the schema.
    pub fn beside(&self, texts: &[String]) -> BTreeSet<&str> {
        let is_ours = |text: &&str| {
            let words = words(text);
            let manipulates = words.first().is_some_and(|word| {
                ["SELECT", "INSERT", "UPDATE", "WITH"].contains(&word.as_str())
            });
            manipulates
                && [
                    "FROM organization",
                    "FROM credentials",
                    "UPDATE organization",
                    "UPDATE \"",
                    "INTO \"",
                    "FROM \"",
                ]
                .iter()
                .any(|part| text.contains(part))
        };
        let is_of_schema = |text: &str| text.contains("migration") || text.contains("_schema");
        let ours = self.distinct().into_iter().filter(is_ours);
        ours.filter(|text| !is_of_schema(text) && !texts.iter().any(|known| known == text))
            .collect()
    }

    /// What a distributed engine refuses: each with the statement.
    pub fn refused(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        // By session: what its transaction has had so far, where one is open.
        let mut open: BTreeMap<&str, BTreeSet<Kind>> = BTreeMap::new();
        for Logged { session, text } in &self.0 {
            let words = words(text);
            let padded = format!(" {} ", words.join(" "));
            for refused in REFUSED {
                if padded.contains(&format!(" {refused} "))
                    || refused == "ADVISORY" && padded.contains("ADVISORY")
                {
                    found.insert(format!("{refused}: {text}"));
                }
            }
            // Several statements in one text are one transaction too.
            let mut kinds_of_text = BTreeSet::new();
            for part in text.split(';') {
                match kind(part) {
                    Some(Kind::Begin) => drop(open.insert(session, BTreeSet::new())),
                    Some(Kind::End) => drop(open.remove(session.as_str())),
                    Some(kind) => {
                        kinds_of_text.insert(kind);
                        if let Some(kinds) = open.get_mut(session.as_str()) {
                            kinds.insert(kind);
                        }
                    }
                    None => {}
                }
            }
            let both = BTreeSet::from([Kind::Definition, Kind::Manipulation]);
            if kinds_of_text == both || open.get(session.as_str()) == Some(&both) {
                found.insert(format!("DDL and DML in one transaction: {text}"));
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Begin,
    End,
    Definition,
    Manipulation,
}

fn kind(statement: &str) -> Option<Kind> {
    match words(statement).first()?.as_str() {
        "BEGIN" | "START" => Some(Kind::Begin),
        "COMMIT" | "END" | "ROLLBACK" | "ABORT" => Some(Kind::End),
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "GRANT" | "REVOKE" => Some(Kind::Definition),
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH" | "MERGE" => Some(Kind::Manipulation),
        _ => None,
    }
}

/// The words of a statement in upper case. Quoted names are left out with their quotes: a column may
/// be called anything.
fn words(statement: &str) -> Vec<String> {
    let outside = statement.split('"').step_by(2).collect::<Vec<_>>().join(" x ");
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let words = outside.split(|letter| !is_word(letter)).filter(|word| !word.is_empty());
    words.map(str::to_ascii_uppercase).collect()
}
