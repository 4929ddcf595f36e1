//! What a database does of all that orgd needs of it, tried out on the database itself. Nothing stays behind.

mod postgres;
mod sqlite;

use std::fmt;

use orgd_migrations::known_steps;
use sea_orm::{DbBackend, DbErr};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Store, changes, credentials, organizations, sql, trouble::Trouble, upkeep, url::Place,
};

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: &'static str,
    /// What was seen; where it will not do, why.
    pub said: String,
    pub will_do: bool,
}

/// What a trial says: what was seen, or why it will not do.
type Found = Result<String, String>;

/// What was tried so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Answers whether it will do.
    fn note(&mut self, name: &'static str, found: Found) -> bool {
        let will_do = found.is_ok();
        let (Ok(said) | Err(said)) = found;
        self.0.push(Finding { name, said, will_do });
        will_do
    }
}

impl Store {
    /// Tries the database that `url` names. The last finding tells why others are missing, where they are.
    pub async fn examine(url: &SecretString) -> Vec<Finding> {
        let mut findings = Findings::default();
        if url.expose_secret().starts_with("sqlite:") {
            sqlite::examine(url, &mut findings).await;
        } else {
            postgres::examine(url, &mut findings).await;
        }
        findings.0
    }

    /// The texts of all statements that a service and the commands on the database may do, but for those of the
    /// schema's steps.
    #[must_use]
    pub fn statement_texts(backend: DbBackend) -> Vec<String> {
        let workers: &[&str] = match backend {
            DbBackend::Sqlite => &sql::sqlite::texts(),
            _ => &sql::postgres::texts(),
        };
        let workers = workers.iter().map(|text| (*text).to_owned());
        workers
            .chain(organizations::texts(backend))
            .chain(changes::texts(backend))
            .chain(credentials::texts(backend))
            .chain([upkeep::text(backend)])
            .collect()
    }

    async fn examine_schema(&self) -> Found {
        self.check_schema().await.map_err(|error| error.to_string())?;
        Ok(format!("has all {} steps", known_steps().len()))
    }
}

/// The words of an error, with the place of the database.
async fn words(error: impl Into<DbErr>, url: &SecretString) -> String {
    Trouble::at(&error.into(), url).await.to_string()
}

/// Of a statement that the database refuses.
fn refused(text: &str, error: impl fmt::Display) -> String {
    let begin: String = text.chars().take(80).collect();
    format!("it refuses the statement that begins with `{begin}`: {error}")
}

fn place(url: &SecretString) -> String {
    Place::of(url).unwrap_or_default().to_string()
}
