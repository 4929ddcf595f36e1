//! The queues of a store, and which workers do the work of each.

use std::{io, sync::Arc};

use super::{
    lookups::{self, Lookups},
    queue::{Queue, QueueLimits},
    worker::{Worker, Workers},
    writes::{self, Writes},
};
use crate::{
    domain::{CredentialDigest, OrganizationId},
    store::{
        entity::{ORGANIZATIONS, credentials, organizations},
        options::StoreOptions,
        sql::pending::Write,
    },
    telemetry::metrics::QueueTelemetry,
};

/// Keys that are looked up in one statement.
const LOOKUP_BATCH_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Queues {
    pub(crate) updates: Arc<Writes>,
    pub(crate) creations: Arc<Writes>,
    pub(crate) organizations: Arc<Lookups<OrganizationId, organizations::Model>>,
    pub(crate) credentials: Arc<Lookups<CredentialDigest, credentials::Model>>,
}

impl Queues {
    /// `system` is the database's name in metrics.
    pub(crate) fn new(options: &StoreOptions, system: &'static str) -> Self {
        let waiting_max = options.queue_max.max(1);
        let batch_max = options.batch_max.max(1);
        let writes = QueueLimits { waiting_max, batch_max };
        let lookups = QueueLimits { waiting_max, batch_max: LOOKUP_BATCH_MAX };
        let telemetry =
            |name, operation, table| QueueTelemetry::new(name, system, operation, table);
        Self {
            updates: Queue::new(writes, telemetry("updates", "UPDATE", ORGANIZATIONS)),
            creations: Queue::new(writes, telemetry("creations", "INSERT", ORGANIZATIONS)),
            organizations: Queue::new(lookups, telemetry(ORGANIZATIONS, "SELECT", ORGANIZATIONS)),
            credentials: Queue::new(lookups, telemetry("credentials", "SELECT", "credentials")),
        }
    }

    /// Starts the workers: `writers` update, and the others create, look up organizations, and look up
    /// credentials.
    pub(crate) fn serve(
        self,
        writers: Vec<Worker>,
        [creating, organizations, credentials]: [Worker; 3],
    ) -> io::Result<Workers> {
        Workers::start(move |workers| {
            for worker in writers {
                workers.spawn(writes::serve(self.updates.clone(), Write::Update, worker));
            }
            workers.spawn(writes::serve(self.creations, Write::Create, creating));
            workers.spawn(lookups::serve(
                self.organizations,
                organizations,
                Worker::organizations,
                |row: &i64, id: OrganizationId| *row == id.get(),
            ));
            workers.spawn(lookups::serve(
                self.credentials,
                credentials,
                Worker::credentials,
                |row: &Vec<u8>, digest: CredentialDigest| *row == digest.0,
            ));
        })
    }

    /// Sets the gauges of waiting work.
    pub(crate) fn observe(&self) {
        self.updates.observe();
        self.creations.observe();
        self.organizations.observe();
        self.credentials.observe();
    }

    /// Refuses new work from now on; what waits is still done.
    pub(crate) fn close(&self) {
        self.updates.close();
        self.creations.close();
        self.organizations.close();
        self.credentials.close();
    }
}
