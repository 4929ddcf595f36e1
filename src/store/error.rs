//! What a failure of the database means to a caller: try again, or a fault of ours.

use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{self, error::DatabaseError},
};

use crate::domain::Error;

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if is_unavailable(&error) {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error.into())
        }
    }
}

fn is_unavailable(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            match error.as_ref() {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => true,
                sqlx::Error::Database(error) => is_passing_state(error.as_ref()),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether the database refused because of its own state, which passes.
fn is_passing_state(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        // The primary result code is the low byte: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
        let primary =
            error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
        return matches!(primary, Some(5 | 6 | 8 | 10 | 13 | 14));
    }
    // Classes of SQLSTATE: 08 connection, 25006 read-only (a standby), 40 serialization and
    // deadlock, 53 resources, 55 not in the needed state (lock_timeout), 57 intervention
    // (statement_timeout, shutdown).
    code == "25006" || ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}
