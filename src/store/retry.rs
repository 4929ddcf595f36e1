//! How a statement is tried: how long its answer is waited for, and how it is tried again where it
//! lost to another transaction.

use std::{io, time::Duration};

use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::time::{sleep, timeout};

use super::error::is_lost_to_another;
use crate::rests;

/// How long the database's work on a statement and the answer's way may take beside its own limit,
/// and how long a connection's sign of life may take.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(400);
/// How often a statement is tried again.
pub(super) const RETRIES_MAX: usize = 5;

/// The rests before a statement is tried again: at most 10, 20, 40, 80 and 160 ms.
pub(super) fn rests() -> impl Iterator<Item = Duration> {
    rests::rests(Duration::from_millis(10), Duration::MAX).take(RETRIES_MAX)
}

/// Does a statement, or a transaction, and does it again where it lost to another transaction, so
/// often at most: it has certainly stored nothing then. An answer is waited for no longer than
/// `answer_timeout`. Whoever has a deadline drops the whole.
pub(super) async fn retried<T, F: Future<Output = Result<T, DbErr>>>(
    answer_timeout: Duration,
    retries_max: usize,
    mut statement: impl FnMut() -> F,
) -> Result<T, DbErr> {
    let mut rests = rests().take(retries_max);
    loop {
        let done = timeout(answer_timeout, statement()).await;
        match done.unwrap_or_else(|_| Err(no_answer())) {
            Err(error)
                if is_lost_to_another(&error)
                    && let Some(rest) = rests.next() =>
            {
                sleep(rest).await;
            }
            done => return done,
        }
    }
}

/// The error of a database that has not answered in time.
pub(super) fn no_answer() -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
}
