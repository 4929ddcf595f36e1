//! The connections that no worker has: how many there are, and who may take one.
//!
//! A statement that no worker does, such as a list, waits for a place first. A holder has half of the places
//! that others leave, so no caller can take all connections. Administrators have a place of their own, and
//! upkeep (the probe, metrics, the state of the schema) has a connection of its own.

use std::time::Duration;

use orgd_shares::{Holder, Over, Share, Shares};
use sea_orm::{DatabaseConnection, DbBackend, DbErr};

use crate::{
    domain::{Error, Principal, Result, Role},
    telemetry::metrics,
};

/// Connections of administrators, all together.
pub(super) const ADMINISTRATORS: u32 = 1;
/// Connections of upkeep.
pub(super) const UPKEEP: u32 = 1;
/// A holder has one of so many parts of the places that others leave.
const PARTS: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Pools {
    /// The connections that write: one on SQLite, where a second could only wait for it.
    pub(super) writer: DatabaseConnection,
    /// The connections that read; on PostgreSQL the same pool.
    pub(super) reader: DatabaseConnection,
    pub(super) upkeep: DatabaseConnection,
    administrators: Shares<Holder>,
    /// The places of all callers. Administrators use them as well when their own is taken.
    callers: Shares<Holder>,
}

impl Pools {
    /// Pools with places for `callers` statements at once, and one more for an administrator.
    pub(super) fn new([writer, reader, upkeep]: [DatabaseConnection; 3], callers: u32) -> Self {
        let places = |count| Shares::new(usize::try_from(count).unwrap_or(usize::MAX), PARTS);
        let (administrators, callers) = (places(ADMINISTRATORS), places(callers));
        Self { writer, reader, upkeep, administrators, callers }
    }

    /// Waits for a place, which is given back when the value is dropped. Refused after 1 to 2 s
    /// ([`orgd_shares::patience`]).
    pub(super) async fn place(&self, principal: &Principal) -> Result<Share<Holder>> {
        if let Some(place) = self.administrators_place(principal) {
            return Ok(place);
        }
        let waited = self.callers.wait_at_most(Duration::MAX, &holder(principal)).await;
        waited.map_err(refusal)
    }

    /// Waits for a place as long as it takes, for work that has had its share of a queue. To its caller it is
    /// under way, so its caller is not refused, but gives up at its deadline.
    pub(super) async fn place_of_queued(&self, principal: &Principal) -> Share<Holder> {
        match self.administrators_place(principal) {
            Some(place) => place,
            None => self.callers.wait(&holder(principal)).await,
        }
    }

    fn administrators_place(&self, principal: &Principal) -> Option<Share<Holder>> {
        let is_administrator = principal.role == Role::Administrator;
        is_administrator.then(|| self.administrators.take(&holder(principal), 1).ok())?
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.writer.get_database_backend()
    }

    /// The database system as OpenTelemetry names it.
    pub(super) fn system(&self) -> &'static str {
        if self.backend() == DbBackend::Sqlite { "sqlite" } else { "postgresql" }
    }

    pub(super) fn observe(&self) {
        if self.backend() == DbBackend::Sqlite {
            observe("writer", &self.writer);
            observe("readers", &self.reader);
        } else {
            observe("general", &self.writer);
        }
        observe("upkeep", &self.upkeep);
    }

    /// Ends every connection once its statement is done.
    pub(super) async fn close(self) -> std::result::Result<(), DbErr> {
        self.upkeep.close().await?;
        self.reader.close().await?;
        self.writer.close().await
    }
}

/// Why a caller has no place, at the pools or in a queue.
pub(super) fn refusal(over: Over) -> Error {
    match over {
        Over::Share => Error::ShareExhausted,
        Over::Whole => Error::Overloaded,
    }
}

/// Whose share a caller's work comes out of.
pub(super) fn holder(principal: &Principal) -> Holder {
    Holder::Principal(principal.subject.clone())
}

fn observe(name: &'static str, pool: &DatabaseConnection) {
    let (size, idle, max) = if pool.get_database_backend() == DbBackend::Sqlite {
        let pool = pool.get_sqlite_connection_pool();
        (pool.size(), pool.num_idle(), pool.options().get_max_connections())
    } else {
        let pool = pool.get_postgres_connection_pool();
        (pool.size(), pool.num_idle(), pool.options().get_max_connections())
    };
    let [size, max] = [size, max].map(|count| usize::try_from(count).unwrap_or(0));
    metrics::pool(name, idle, size.saturating_sub(idle), max);
}
