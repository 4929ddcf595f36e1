//! Connections to PostgreSQL that can no longer do what they must, and how they are renewed.
//!
//! A connection outlives the state in which it was made. An address may have led to a standby for a
//! moment, or the server's role may have changed: such a session refuses every write for as long as it
//! lives. A table may have changed under a prepared statement. In both cases nothing was written, and a
//! new connection does.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{self, PgConnection, Row, postgres::PgPoolOptions},
};
use tokio::time::timeout;

use super::{options::STATEMENT_TIMEOUT_MAX, retry::ANSWER_TIME};

/// How long a connection may have been quiet before it is asked for a sign of life: one that the
/// server has closed meanwhile is then replaced before a statement is lost on it.
pub(super) const QUIET_MAX: Duration = Duration::from_millis(100);

/// Which connections are of use: those made since it was last found that one is not. Shared by all
/// connections of a store.
#[derive(Clone, Debug)]
pub(super) struct Renewal(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    since: Instant,
    /// Why the last new connection was refused, where it was.
    refused: Option<String>,
}

impl Renewal {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { since: Instant::now(), refused: None })))
    }

    /// A connection was found to be of no use: no other that is as old is used again.
    pub(super) fn renew(&self) {
        self.lock().since = Instant::now();
    }

    /// Whether a connection that was made then may be used.
    pub(super) fn allows(&self, made: Instant) -> bool {
        made >= self.lock().since
    }

    /// Whether a connection that was made then may be used, and gives a sign of life.
    pub(super) async fn is_whole(
        &self,
        connection: &mut PgConnection,
        made: Instant,
        quiet: Duration,
    ) -> bool {
        self.allows(made) && (quiet < QUIET_MAX || is_alive(connection).await)
    }

    /// Connections of a pool that are made, kept and handed out only as long as they are of use.
    ///
    /// sqlx itself waits for a connection's sign of life without an end when it goes back to its pool;
    /// until then it counts as one of the pool's.
    pub(super) fn of_use(&self, pool: PgPoolOptions) -> PgPoolOptions {
        let (connecting, acquiring) = (self.clone(), self.clone());
        pool.test_before_acquire(false)
            .after_connect(move |connection, _| {
                let renewal = connecting.clone();
                Box::pin(async move { renewal.admit(connection).await })
            })
            .before_acquire(move |connection, about| {
                let renewal = acquiring.clone();
                Box::pin(async move {
                    let now = Instant::now();
                    let made = now.checked_sub(about.age).unwrap_or(now);
                    Ok(renewal.is_whole(connection, made, about.idle_for).await)
                })
            })
            .after_release(|connection, _| Box::pin(async move { Ok(is_alive(connection).await) }))
    }

    /// Looks at a new connection. One that is of no use is held until whoever asked for it gives up:
    /// sqlx would log an error and connect anew, up to a hundred times a second.
    async fn admit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let unfit = match unfit(connection).await? {
            None => unlimited(connection).await?,
            unfit => unfit,
        };
        let before = std::mem::replace(&mut self.lock().refused, unfit.clone());
        match unfit {
            None => {
                if before.is_some() {
                    tracing::info!("the database can be used again");
                }
                Ok(())
            }
            Some(reason) => {
                if before.as_ref() != Some(&reason) {
                    tracing::error!("the database cannot be used: {reason}");
                }
                pending().await
            }
        }
    }

    /// The reason of a failure to connect, where it is known better than by the failure.
    pub(super) fn explain(&self, error: DbErr) -> DbErr {
        match self.lock().refused.clone() {
            Some(reason) => DbErr::Conn(RuntimeErr::Internal(reason)),
            None => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection is of no use, where it is not.
async fn unfit(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let settings = "SELECT current_setting('transaction_read_only') AS read_only, \
        current_setting('server_encoding') AS encoding";
    // One round trip, as a ping would be, and nothing is kept prepared.
    let rows = sqlx::raw_sql(settings).fetch_all(connection).await?;
    let row = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let reason = if row.try_get::<String, _>("read_only")? == "on" {
        "the server takes no writes: it is a standby, or default_transaction_read_only is on"
    } else if row.try_get::<String, _>("encoding")? != "UTF8" {
        "the encoding of the database is not UTF8: create one with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move the data there"
    } else {
        return Ok(None);
    };
    Ok(Some(reason.to_owned()))
}

/// Why a statement on a connection could outlive its limit. Some hosts and poolers drop the options of a
/// connection's start. A smaller limit does no harm.
async fn unlimited(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let limit = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'";
    let rows = sqlx::raw_sql(limit).fetch_all(connection).await?;
    let limit = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?.try_get::<String, _>(0)?;
    let limit_max = STATEMENT_TIMEOUT_MAX.as_millis();
    if limit.parse().is_ok_and(|limit| (1..=limit_max).contains(&limit)) {
        return Ok(None);
    }
    Ok(Some(format!(
        "statement_timeout is {limit} ms (0: none), and must be 1 to {limit_max} ms: a revocation waits \
         until every statement that began before it is over. Where the start-up options of connections \
         are dropped on the way, set it in the database: \
         ALTER ROLE … SET statement_timeout = '{limit_max}ms'"
    )))
}

/// Whether a connection gives a sign of life, and can write.
async fn is_alive(connection: &mut PgConnection) -> bool {
    matches!(timeout(ANSWER_TIME, unfit(connection)).await, Ok(Ok(None)))
}
