//! The trials of SQLite.

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, Statement, TransactionTrait,
    sqlx::{self, AssertSqlSafe, Executor, SqlSafeStr},
};
use secrecy::SecretString;

use super::finding::{Findings, Found, place, refused, words};
use crate::store::{Store, StoreOptions, sql::sqlite::immediate};

/// What an answer means.
type Explain = fn(String) -> Found;

/// What is asked.
const ASKED: [(&str, &str, Explain); 4] = [
    ("version", "SELECT sqlite_version()", Ok),
    ("journal mode", "PRAGMA journal_mode", |mode| {
        Ok(if mode == "wal" { mode } else { format!("{mode}; a service makes it wal") })
    }),
    ("encoding", "PRAGMA encoding", Ok),
    ("integrity", "PRAGMA quick_check(1)", |said| {
        if said == "ok" { Ok(said) } else { Err(format!("the file is damaged: {said}")) }
    }),
];

pub(super) async fn examine(url: &SecretString, findings: &mut Findings) {
    let options = StoreOptions { creates: false, ..StoreOptions::default() };
    let store = match Store::connect(url, options).await {
        Ok(store) => store,
        Err(error) => {
            findings.note("file", Err(error.to_string()));
            return;
        }
    };
    findings.note("file", Ok(place(url)));
    for (name, ask, explain) in ASKED {
        let found = match store.ask(ask).await {
            Ok(said) => explain(said),
            Err(error) => Err(words(error, url).await),
        };
        findings.note(name, found);
    }
    let locked = match store.lock().await {
        Ok(()) => Ok("was taken and given back".to_owned()),
        Err(error) => Err(words(error, url).await),
    };
    findings.note("write lock", locked);
    if findings.note("schema", store.examine_schema().await) {
        findings.note("statements", store.prepare_all().await);
    }
    // Nothing waits in its queues.
    let _ = store.close().await;
}

impl Store {
    async fn ask(&self, text: &str) -> Result<String, DbErr> {
        let ask = Statement::from_string(DbBackend::Sqlite, text);
        let row = self.pools.writer.query_one_raw(ask).await?;
        row.map_or(Ok(String::new()), |row| row.try_get_by_index(0))
    }

    async fn lock(&self) -> Result<(), DbErr> {
        self.pools.writer.begin_with_options(immediate()).await?.rollback().await
    }

    async fn prepare_all(&self) -> Found {
        let pool = self.pools.writer.get_sqlite_connection_pool();
        let mut connection = pool.acquire().await.map_err(|error| error.to_string())?;
        let texts = Self::statement_texts(DbBackend::Sqlite);
        for text in &texts {
            let prepared = connection.prepare(AssertSqlSafe(text.as_str()).into_sql_str()).await;
            prepared.map_err(|error: sqlx::Error| refused(text, error))?;
        }
        Ok(format!("{} of {} are prepared", texts.len(), texts.len()))
    }
}
