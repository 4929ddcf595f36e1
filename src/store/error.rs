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

/// Whether somebody else has a SQLite file for itself.
pub(super) fn is_locked(error: &DbErr) -> bool {
    let DbErr::Conn(RuntimeErr::SqlxError(error)) = error else { return false };
    let database_error = error.as_database_error();
    database_error.is_some_and(|error| matches!(sqlite_code(error), Some(5 | 6)))
}

/// The primary result code of an error of SQLite's, which is the low byte.
fn sqlite_code(error: &dyn DatabaseError) -> Option<u32> {
    let error = error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Whether the database refused because of its own state, which passes.
fn is_passing_state(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if let Some(code) = sqlite_code(error) {
        // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
        return matches!(code, 5 | 6 | 8 | 10 | 13 | 14);
    }
    // Classes of SQLSTATE: 08 connection, 25006 read-only (a standby), 40 serialization and
    // deadlock, 53 resources, 55 not in the needed state (lock_timeout), 57 intervention
    // (statement_timeout, shutdown).
    code == "25006" || ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}
