//! The queues of a store, and who does the work of each: whoever brings it, or a worker.

use std::{io, sync::Arc};

use orgd_shares::Holder;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{
    lookups::{self, Key, Lookups},
    queue::{OrganizationLock, Queue, QueueLimits},
    worker::{Worker, Workers},
    writes::{self, Outcome, Writes},
};
use crate::{
    domain::{CredentialDigest, Error, OrganizationId, Result},
    store::{
        entity::{ORGANIZATIONS, credentials, organizations},
        options::StoreOptions,
        sql::pending::{PendingUpdate, Write},
    },
    telemetry::metrics::QueueTelemetry,
};

/// Keys that are looked up in one statement.
const LOOKUP_BATCH_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Queues {
    updates: Arc<Writes>,
    creations: Arc<Writes>,
    organizations: Arc<Lookups<OrganizationId>>,
    credentials: Arc<Lookups<CredentialDigest>>,
    /// None on SQLite, where every connection has a thread of its own, which has to be woken anyway.
    alone: Option<Alone>,
}

/// For one caller at a time that finds nobody before it: its work is a task among the requests. The workers' thread would have
/// to be woken, and to wake the caller.
#[derive(Clone, Debug)]
struct Alone {
    worker: Arc<Mutex<Worker>>,
    /// As with a worker, what has begun is done to its end if the caller gives up.
    tasks: TaskTracker,
}

impl Queues {
    /// `system` is the database's name in metrics.
    pub(crate) fn new(options: &StoreOptions, system: &'static str, alone: Option<Worker>) -> Self {
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
            alone: alone.map(|worker| Alone {
                worker: Arc::new(Mutex::new(worker)),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Writes a row, out of the share of `holder`. The organization stays locked until the lock is dropped.
    pub(crate) async fn write(
        &self,
        holder: &Holder,
        write: Write,
        row: &Arc<PendingUpdate>,
    ) -> Result<(Outcome, OrganizationLock<Arc<PendingUpdate>, Outcome>)> {
        let queue = match write {
            Write::Update => &self.updates,
            Write::Create => &self.creations,
        };
        let alone = |worker| writes::alone(worker, write, row.clone());
        if let Some(done) = self.at_once(queue, row.id, alone).await {
            return done;
        }
        queue.ask(holder, row.id, row.clone()).await
    }

    /// Looks up an organization, out of the share of `holder`. None: there is no such row.
    pub(crate) async fn organization(
        &self,
        holder: &Holder,
        id: OrganizationId,
    ) -> Result<Option<organizations::Model>> {
        self.look_up(&self.organizations, holder, id).await
    }

    /// The same with a credential.
    pub(crate) async fn credential(
        &self,
        holder: &Holder,
        digest: CredentialDigest,
    ) -> Result<Option<credentials::Model>> {
        self.look_up(&self.credentials, holder, digest).await
    }

    async fn look_up<K: Key>(
        &self,
        queue: &Arc<Lookups<K>>,
        holder: &Holder,
        key: K,
    ) -> Result<Option<K::Model>> {
        if let Some(found) = self.at_once(queue, None, |worker| lookups::alone(worker, key)).await {
            return found?.0;
        }
        queue.ask(holder, None, key).await?.0
    }

    /// Does work without a worker, if nothing waits and nothing is under way. None: it has to wait for one.
    async fn at_once<W, A, F>(
        &self,
        queue: &Arc<Queue<W, A>>,
        organization: Option<OrganizationId>,
        work: impl FnOnce(OwnedMutexGuard<Worker>) -> F,
    ) -> Option<Result<(A, OrganizationLock<W, A>)>>
    where
        F: Future<Output = A> + Send + 'static,
        W: Send + 'static,
        A: Send + 'static,
    {
        let Alone { worker, tasks } = self.alone.as_ref()?;
        let worker = worker.clone().try_lock_owned().ok()?;
        let (claim, lock) = queue.claim(organization)?;
        let work = work(worker);
        let work = tasks.spawn(async move {
            let answer = work.await;
            drop(claim);
            (answer, lock)
        });
        let done = work.instrument(queue.span()).await;
        Some(done.map_err(|_| Error::Internal("work ended without an answer".into())))
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
            workers.spawn(lookups::serve(self.organizations, organizations));
            workers.spawn(lookups::serve(self.credentials, credentials));
        })
    }

    /// Sets the gauges of waiting work.
    pub(crate) fn observe(&self) {
        self.updates.observe();
        self.creations.observe();
        self.organizations.observe();
        self.credentials.observe();
    }

    /// Refuses new work from now on; what waits is still done. Returns when nothing is done without a worker any more.
    pub(crate) async fn close(&self) {
        self.updates.close();
        self.creations.close();
        self.organizations.close();
        self.credentials.close();
        if let Some(Alone { tasks, .. }) = &self.alone {
            tasks.close();
            tasks.wait().await;
        }
    }
}
