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
    sqlx::{self, PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgPoolOptions},
};
use tokio::time::timeout;

use super::{retry::ANSWER_TIME, session::SessionSettings};

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
        settings: SessionSettings,
        made: Instant,
        quiet: Duration,
    ) -> bool {
        self.allows(made) && (quiet < QUIET_MAX || is_alive(connection, settings).await)
    }

    /// Connections of a pool that are made, kept and handed out only as long as they are of use.
    ///
    /// sqlx itself waits for a connection's sign of life without an end when it goes back to its pool;
    /// until then it counts as one of the pool's.
    pub(super) fn of_use(&self, pool: PgPoolOptions, settings: SessionSettings) -> PgPoolOptions {
        let (connecting, acquiring) = (self.clone(), self.clone());
        pool.test_before_acquire(false)
            .after_connect(move |connection, _| {
                let renewal = connecting.clone();
                Box::pin(async move { renewal.admit(connection, settings).await })
            })
            .before_acquire(move |connection, about| {
                let renewal = acquiring.clone();
                Box::pin(async move {
                    let now = Instant::now();
                    let made = now.checked_sub(about.age).unwrap_or(now);
                    Ok(renewal.is_whole(connection, settings, made, about.idle_for).await)
                })
            })
            .after_release(move |connection, _| {
                Box::pin(async move { Ok(is_alive(connection, settings).await) })
            })
    }

    /// Fails where a session of one pool is also one of the other: what is set on either would hold for both, and
    /// prepared statements would meet each other's. Answers the connection of the workers that it was found by.
    pub(super) async fn own_sessions(
        &self,
        [calls, workers]: [&PgPool; 2],
        settings: SessionSettings,
    ) -> Result<PoolConnection<Postgres>, DbErr> {
        let found = async {
            let mut connection = calls.acquire().await?;
            // A new one, whose settings differ.
            let worker = workers.acquire().await?;
            Ok::<_, sqlx::Error>((settings.unfit(&mut connection).await?, worker))
        };
        match found.await {
            Ok((None, worker)) => Ok(worker),
            Ok((Some(reason), _)) => Err(DbErr::Conn(RuntimeErr::Internal(reason))),
            Err(error) => Err(self.explain(DbErr::Conn(RuntimeErr::SqlxError(error.into())))),
        }
    }

    /// Sets a new connection up and looks at it. One that is of no use is held until whoever asked for it gives up:
    /// sqlx would log an error and connect anew, up to a hundred times a second.
    async fn admit(
        &self,
        connection: &mut PgConnection,
        settings: SessionSettings,
    ) -> Result<(), sqlx::Error> {
        settings.set(connection).await?;
        let unfit = settings.unfit(connection).await?;
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

/// Whether a connection gives a sign of life, and can do what it must.
async fn is_alive(connection: &mut PgConnection, settings: SessionSettings) -> bool {
    match timeout(ANSWER_TIME, settings.unfit(connection)).await {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(reason))) => {
            tracing::warn!(reason, "a connection to the database is replaced");
            false
        }
        _ => false,
    }
}
