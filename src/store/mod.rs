//! The only room that knows SeaORM and SQL: one concrete [`Store`] over SQLite or PostgreSQL.
//!
//! Updates, creations and lookups by key wait in a queue while the workers are busy and are then done
//! together (`queue`); all other statements take a connection of a pool each.
//!
//! Architecture invariant: no statement reads a row in order to write it back, and every write goes through
//! [`Store::write`] or `batch::writes`, which report a failing commit.

mod batch;
mod changes;
mod clock;
mod codes;
mod connect;
mod credentials;
mod entity;
mod error;
mod examine;
mod files;
mod migrate;
mod options;
mod organizations;
mod page;
mod pools;
mod renewal;
mod retry;
mod session;
mod sql;
mod statements;
mod tls;
mod trouble;
mod upkeep;
mod url;
mod uses;

pub use clock::now;
pub use examine::Finding;
pub use migrate::MigrationStep;
pub use options::{STATEMENT_TIMEOUT_MAX, StoreOptions};
pub use trouble::Trouble;
pub use url::Place;
pub use uses::is_noted;

use self::{
    batch::{health::Health, queues::Queues, worker::Workers},
    files::Files,
    pools::Pools,
    renewal::Renewal,
    uses::Uses,
};
use crate::domain::{self, Result};

#[derive(Clone, Debug)]
pub struct Store {
    pools: Pools,
    queues: Queues,
    /// What does the work of the queues, until [`Store::close`].
    workers: Workers,
    health: Vec<Health>,
    files: Files,
    renewal: Renewal,
    options: StoreOptions,
    place: Place,
    uses: Uses,
}

impl Store {
    /// Waits until a worker has failed, without which updates or lookups would wait for ever; it
    /// never does unless there is a fault.
    pub async fn failed(&self) -> domain::Error {
        self.workers.ended().await;
        error::internal("the workers to the database have ended")
    }

    /// Ends the workers once they have done what waits, and every connection once its statement is
    /// done.
    pub async fn close(self) -> Result<()> {
        self.queues.close().await;
        self.workers.ended().await;
        self.pools.close().await.map_err(error::failure)
    }
}
