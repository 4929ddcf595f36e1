//! How a statement is done: how long its answer is awaited, and how it is retried after it lost to another
//! transaction.

use std::{io, time::Duration};

use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::time::{sleep, timeout};

use super::error::is_lost_to_another;
use crate::rests;

/// How much longer than the database's own limit for a statement its answer is awaited. Also how long an
/// answer to a ping may take.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(400);
/// Retries of one statement, at most.
pub(super) const RETRIES_MAX: usize = 5;

/// The pauses before the retries of a statement: at most 10, 20, 40, 80 and 160 ms.
pub(super) fn rests() -> impl Iterator<Item = Duration> {
    rests::rests(Duration::from_millis(10), Duration::MAX).take(RETRIES_MAX)
}

/// Does a statement or a transaction. If it lost to another transaction nothing was stored, and it is
/// retried, up to `retries_max` times. Each answer is awaited for `answer_timeout` at most. A caller with a
/// deadline drops the future.
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
