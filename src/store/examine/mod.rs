//! What a database does of all that orgd needs of it, tried out on the database itself. Nothing stays behind.

mod finding;
mod postgres;
mod sqlite;

use orgd_migrations::known_steps;
use sea_orm::DbBackend;
use secrecy::{ExposeSecret, SecretString};

pub use self::finding::Finding;
use self::finding::{Findings, Found};
use super::{Store, changes, credentials, organizations, sql, upkeep};

impl Store {
    /// Tries the database that `url` names. The last finding tells why others are missing, where they are.
    pub async fn examine(url: &SecretString) -> Vec<Finding> {
        let mut findings = Findings::default();
        if url.expose_secret().starts_with("sqlite:") {
            sqlite::examine(url, &mut findings).await;
        } else {
            postgres::examine(url, &mut findings).await;
        }
        findings.all()
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
