//! What the process asks for itself, on a connection that no client can take: whether it can do its
//! work, and its metrics.

use sea_orm::{EntityTrait, QuerySelect};

use super::{Store, entity::organizations};
use crate::{domain::Result, telemetry::metrics};

impl Store {
    /// Whether the service can do its work: as each lane last found it, and whether the database
    /// answers those who do not go by a lane.
    pub async fn check(&self) -> Result<()> {
        for health in &self.health {
            health.check()?;
        }
        // Of the key alone: what is stored beside it must not count.
        let id = organizations::Column::Id;
        let probe = organizations::Entity::find().select_only().column(id).limit(1);
        let probe = || probe.clone().into_tuple::<i64>();
        self.attempt(|| probe().all(&self.pools.upkeep)).await?;
        Ok(())
    }

    /// Sets the metrics that are states rather than events.
    pub async fn observe(&self) {
        self.updates.observe();
        self.creations.observe();
        self.organizations.observe();
        self.credentials.observe();
        self.pools.observe();
        if let Ok(steps) = self.migration_steps().await {
            let unknown = steps.iter().filter(|step| !step.known).count();
            let pending = steps.iter().filter(|step| !step.applied).count();
            metrics::migrations(steps.len() - pending - unknown, pending, unknown);
        }
    }
}
