//! What a database says when it refuses a statement.

use sea_orm_migration::sea_orm::{DbErr, RuntimeErr, sqlx::error::DatabaseError};

/// The code of a database's refusal: SQLSTATE, or a number of SQLite's.
pub(crate) fn sqlstate(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return None;
    };
    error.as_database_error().and_then(DatabaseError::code).map(Into::into)
}
