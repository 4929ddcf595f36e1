//! What a failure of the database means: to a caller, try again or a fault of ours; to a batch,
//! whether one of its rows is at fault; to a worker, whether its connection is of any use.

use std::io;

use sea_orm::{
    DbErr, RuntimeErr, SqlErr,
    sqlx::{self, error::DatabaseError, postgres::PgDatabaseError},
};

use super::{
    codes::{of_sqlx, sqlite_code},
    trouble::Trouble,
};
use crate::domain::Error;

/// What a failure is to a caller.
pub(super) fn failure(error: DbErr) -> Error {
    let refused = if is_unavailable(&error) { Error::Unavailable } else { Error::Internal };
    refused(Trouble::from(error).into())
}

/// A fault of ours, or of what is stored.
pub(super) fn internal(text: &'static str) -> Error {
    Error::Internal(text.into())
}

/// What the database refused with, where it answered.
fn refusal(error: &DbErr) -> Option<&dyn DatabaseError> {
    of_sqlx(error).and_then(sqlx::Error::as_database_error)
}

fn is_unavailable(error: &DbErr) -> bool {
    is_unreachable(error)
        || matches!(error, DbErr::Conn(_))
        || refusal(error).is_some_and(is_passing_state)
}

/// Whether a connection broke, so that another may do. Not where the answer did not come in time:
/// there is no time for another then.
pub(super) fn is_cut_off(error: &DbErr) -> bool {
    is_unreachable(error) && !of_sqlx(error).is_some_and(is_late)
}

fn is_late(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        _ => false,
    }
}

/// Whether the database did not answer.
pub(super) fn is_unreachable(error: &DbErr) -> bool {
    matches!(error, DbErr::ConnectionAcquire(_)) || of_sqlx(error).is_some_and(is_broken)
}

/// Whether a connection is of no use any more.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Classes of SQLSTATE: connection exception, and a server that shuts down or has crashed.
        sqlx::Error::Database(error) => {
            sqlite_code(error.as_ref()).is_none()
                && error
                    .code()
                    .is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// Whether a session refused a statement because of what it is, so that a new one may do it: nothing
/// was written.
pub(super) fn is_outlived(error: &DbErr) -> bool {
    refusal(error).is_some_and(is_refusal_of_session)
}

/// Of those of PostgreSQL: a transaction that may only read, as on a standby; and a statement that is
/// kept prepared and is not what it was, because a table has changed or the statement is gone.
fn is_refusal_of_session(error: &dyn DatabaseError) -> bool {
    if sqlite_code(error).is_some() {
        return false;
    }
    match error.code().as_deref() {
        Some("25006" | "26000" | "42P05") => true,
        // Else a feature that the server does not have.
        Some("0A000") => {
            let error = error.try_downcast_ref::<PgDatabaseError>();
            error.is_some_and(|error| {
                error.routine() == Some("RevalidateCachedQuery")
                    || error.message().contains("cached plan")
            })
        }
        _ => false,
    }
}

/// Whether a statement on several rows failed because of one of them, so that the others can do
/// without it. The statement has stored nothing.
pub(super) fn is_about_a_row(error: &DbErr) -> bool {
    let Some(refusal) = refusal(error) else { return false };
    is_lost_to_another(error) || is_too_slow(refusal) || !is_passing_state(refusal)
}

/// Whether a statement lost to another transaction: a serialization failure or a deadlock. It has
/// stored nothing, unlike with the others of class 40, such as 40003, of which that is not known.
pub(super) fn is_lost_to_another(error: &DbErr) -> bool {
    let Some(error) = refusal(error) else { return false };
    sqlite_code(error).is_none()
        && error.code().is_some_and(|code| code == "40001" || code == "40P01")
}

/// Whether a key that must be unique is there already.
pub(super) fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// Whether somebody else has a SQLite file for itself.
pub(super) fn is_locked(error: &DbErr) -> bool {
    let DbErr::Conn(RuntimeErr::SqlxError(error)) = error else { return false };
    let database_error = error.as_database_error();
    database_error.is_some_and(|error| matches!(sqlite_code(error), Some(5 | 6)))
}

/// `lock_timeout` or `statement_timeout` has passed.
fn is_too_slow(error: &dyn DatabaseError) -> bool {
    sqlite_code(error).is_none()
        && error.code().is_some_and(|code| code == "55P03" || code == "57014")
}

/// Whether the database refused because of its own state, which passes.
fn is_passing_state(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if let Some(code) = sqlite_code(error) {
        // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
        return matches!(code, 5 | 6 | 8 | 10 | 13 | 14);
    }
    // Classes of SQLSTATE: 08 connection, 40 serialization and deadlock, 53 resources, 55 not in the
    // needed state (lock_timeout), 57 intervention (statement_timeout, shutdown).
    is_refusal_of_session(error)
        || ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}
