//! What the process asks for itself, on a connection that no client can take: whether it can do its
//! work, its metrics, and the state of the schema.

use sea_orm::{DbErr, EntityTrait, QuerySelect};

use super::{
    Store,
    entity::organizations,
    error::failure,
    migrate::{self, MigrationStep},
};
use crate::{domain::Result, telemetry::metrics};

impl Store {
    /// Whether the service can do its work: as each worker last found it, and whether the database
    /// answers those who do not go by a worker.
    pub async fn check(&self) -> Result<()> {
        for health in &self.health {
            health.check()?;
        }
        // Of the key alone: what is stored beside it must not count.
        let id = organizations::Column::Id;
        let probe = organizations::Entity::find().select_only().column(id).limit(1);
        let probe = || probe.clone().into_tuple::<i64>();
        self.retried(|| probe().all(&self.pools.upkeep)).await.map(drop).map_err(failure)
    }

    /// Fails where this version cannot work with the schema as it is; writes nothing.
    pub async fn check_schema(&self) -> std::result::Result<(), DbErr> {
        migrate::check(&self.migration_steps().await?)
    }

    /// Every step in order, those of later versions last, and whether the database has it; writes
    /// nothing.
    pub async fn migration_steps(&self) -> std::result::Result<Vec<MigrationStep>, DbErr> {
        self.files.around(migrate::find(&self.pools.upkeep)).await
    }

    /// Sets the metrics that are states rather than events.
    pub async fn observe(&self) {
        self.queues.observe();
        self.pools.observe();
        if let Ok(steps) = self.migration_steps().await {
            let unknown = steps.iter().filter(|step| !step.known).count();
            let pending = steps.iter().filter(|step| !step.applied).count();
            metrics::migrations(steps.len() - pending - unknown, pending, unknown);
        }
    }
}
