//! What a database says when it refuses a statement.

use sea_orm_migration::sea_orm::{DbErr, RuntimeErr, sqlx::error::DatabaseError};

/// Serialization failure or deadlock (class 40 of SQLSTATE), or a row locked too long. SQLite's codes
/// are numbers.
pub(crate) fn is_lost_to_another(error: &DbErr) -> bool {
    sqlstate(error).is_some_and(|code| code.len() == 5 && code.starts_with("40") || code == "55P03")
}

/// The code of a database's refusal: SQLSTATE, or a number of SQLite's.
fn sqlstate(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return None;
    };
    error.as_database_error().and_then(DatabaseError::code).map(Into::into)
}
