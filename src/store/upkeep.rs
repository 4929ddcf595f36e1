//! What the process asks for itself, on a connection that no client can take: whether it can do its
//! work, its metrics, and the state of the schema.

use sea_orm::{DbBackend, EntityTrait, QuerySelect, QueryTrait, Select};

use super::{
    Store,
    entity::organizations,
    error::failure,
    migrate::{self, MigrationStep},
    trouble::Trouble,
};
use crate::{
    domain::{Error, Result},
    telemetry::metrics,
};

impl Store {
    /// Whether the service can do its work: as each worker last found it, and whether the database
    /// answers those who do not go by a worker.
    pub async fn check(&self) -> Result<()> {
        for health in &self.health {
            health.check()?;
        }
        let any_id = || any_id().into_tuple::<i64>();
        self.retried(|| any_id().all(&self.pools.upkeep)).await.map(drop).map_err(failure)
    }

    /// Fails where this version cannot work with the schema as it is; writes nothing.
    pub async fn check_schema(&self) -> std::result::Result<(), Trouble> {
        migrate::check(&self.migration_steps().await?).map_err(|error| Trouble::of(&error))
    }

    /// Every step in order, those of later versions last, and whether the database has it; writes
    /// nothing.
    pub async fn migration_steps(&self) -> std::result::Result<Vec<MigrationStep>, Trouble> {
        match self.files.around(migrate::find(&self.pools.upkeep)).await {
            Ok(steps) => Ok(steps),
            Err(error) => Err(self.found(Trouble::of(&error)).await),
        }
    }

    /// Why [`Store::check`] has failed, in words for an operator; None where it gave no answer in time.
    pub async fn explain(&self, failure: Option<&Error>) -> Trouble {
        let cause = match failure {
            Some(Error::Unavailable(cause) | Error::Internal(cause)) => cause,
            Some(error) => return Trouble::whole(error),
            None => return self.found(Trouble::silence()).await,
        };
        match cause.downcast_ref::<Trouble>() {
            Some(trouble) => self.found(trouble.clone()).await,
            None => Trouble::whole(&**cause),
        }
    }

    async fn found(&self, trouble: Trouble) -> Trouble {
        if self.pools.backend() == DbBackend::Sqlite {
            return trouble.found(&self.place, None).await;
        }
        let postgres = self.pools.upkeep.get_postgres_connection_pool().connect_options();
        trouble.found(&self.place, Some(&postgres)).await
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

/// Of the key alone: what is stored beside it must not count.
fn any_id() -> Select<organizations::Entity> {
    let id = organizations::Column::Id;
    organizations::Entity::find().select_only().column(id).limit(1)
}

/// The statement of upkeep, beside those that the workers' queues and the schema have.
pub(super) fn text(backend: DbBackend) -> String {
    any_id().build(backend).sql
}
