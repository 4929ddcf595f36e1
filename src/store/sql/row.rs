//! Rows as a batch reads them. Each is decoded by itself, so a row that cannot be decoded fails only its own
//! caller.

use std::panic::{AssertUnwindSafe, catch_unwind};

use data_encoding::HEXLOWER;
use sea_orm::{DbErr, FromQueryResult, QueryResult, TryGetable};

use crate::{
    domain::{self, CredentialDigest, Error, OrganizationId},
    store::entity::{credentials, organizations},
};

/// The keys of the rows that are looked up.
#[derive(Clone, Copy)]
pub(crate) enum Keys<'a> {
    Ids(&'a [OrganizationId]),
    Digests(&'a [CredentialDigest]),
}

/// A row's key, and the decoded row or why it cannot be decoded.
pub(crate) type Row<K, M> = (K, domain::Result<M>);

pub(crate) type OrganizationRow = Row<i64, organizations::Model>;
pub(crate) type CredentialRow = Row<Vec<u8>, credentials::Model>;

pub(crate) fn organizations(
    rows: impl IntoIterator<Item = QueryResult>,
) -> Result<Vec<OrganizationRow>, DbErr> {
    rows.into_iter().map(|row| decoded(&row, "id", |id| format!("organization {id}"))).collect()
}

pub(crate) fn credentials(
    rows: impl IntoIterator<Item = QueryResult>,
) -> Result<Vec<CredentialRow>, DbErr> {
    let name = |digest: &Vec<u8>| format!("credential {}", HEXLOWER.encode(digest));
    rows.into_iter().map(|row| decoded(&row, "digest", name)).collect()
}

/// The row of a statement that answers at most one.
pub(crate) fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

fn decoded<K: TryGetable, M: FromQueryResult>(
    row: &QueryResult,
    key: &str,
    name: impl Fn(&K) -> String,
) -> Result<Row<K, M>, DbErr> {
    let key = row.try_get("", key)?;
    // The driver panics at a stored time that it cannot represent, such as `infinity`.
    let decoded = catch_unwind(AssertUnwindSafe(|| M::from_query_result(row, "")))
        .unwrap_or_else(|_| Err(DbErr::Custom("the driver panicked".to_owned())));
    let failure = |error| format!("the row of {} cannot be decoded: {error}", name(&key));
    let decoded = decoded.map_err(|error| Error::Internal(failure(error).into()));
    Ok((key, decoded))
}
