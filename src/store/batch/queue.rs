//! The queue in which work waits while every worker is busy. It decides what is in one batch: lookups,
//! updates and creations, on both databases.
//!
//! A free worker takes work at once and does not wait for more. Holders are served in turn, so no caller
//! waits behind all that another has sent. Work that comes while nothing waits and nothing is under way needs no
//! worker: its caller claims it. The queue knows no SQL.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use orgd_shares::{Holder, Line, Over, Share, Shares};
use tokio::sync::{Notify, oneshot};
use tracing::{Instrument, Span};

use crate::{
    domain::{Error, OrganizationId, Result},
    store::pools::refusal,
    telemetry::metrics::QueueTelemetry,
};

/// A holder, and an organization, has one of so many parts of the places that others leave: half at most.
const PARTS: usize = 2;

/// How much may wait, and how much of it is done at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Pieces of work that wait; more are refused.
    pub(crate) waiting_max: usize,
    /// Pieces of work in one batch.
    pub(crate) batch_max: usize,
}

/// Work of the type `W` that waits for an answer of the type `A`.
#[derive(Debug)]
pub(crate) struct Queue<W, A> {
    state: Mutex<State<W, A>>,
    /// The places of waiting work. Lock order: `state` first, then this.
    places: Shares<Holder>,
    arrived: Notify,
    /// Whether a caller has given up since such work was last removed from the queue.
    has_leavers: AtomicBool,
    limits: QueueLimits,
    telemetry: QueueTelemetry,
}

/// A caller that waits for its answer. If it is dropped before the answer comes, the caller has given up.
struct WaitingCaller<'a> {
    has_leavers: &'a AtomicBool,
    is_answered: bool,
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.has_leavers.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct State<W, A> {
    /// Work that may go into the next batch: at most one piece for each organization.
    ready: Line<Holder, WaitingWork<W, A>>,
    /// Organizations that are locked, and the work that waits for each.
    locked: BTreeMap<OrganizationId, Line<Holder, WaitingWork<W, A>>>,
    /// Batches that workers have, and work without a worker.
    under_way: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct WaitingWork<W, A> {
    work: W,
    organization: Option<OrganizationId>,
    reply: oneshot::Sender<(A, OrganizationLock<W, A>)>,
    /// Given back when a worker takes the work.
    _place: Share<Holder>,
}

/// A piece of work that a worker must answer. If it is dropped without an answer, its caller gets INTERNAL.
#[derive(Debug)]
pub(crate) struct Job<W, A> {
    pub(crate) work: W,
    reply: oneshot::Sender<(A, OrganizationLock<W, A>)>,
    lock: OrganizationLock<W, A>,
}

/// The organization lock: no other update of the organization is done until this is dropped.
#[derive(Debug)]
pub(crate) struct OrganizationLock<W, A>(Option<(Arc<Queue<W, A>>, OrganizationId)>);

impl<W, A> Drop for OrganizationLock<W, A> {
    fn drop(&mut self) {
        if let Some((queue, organization)) = self.0.take() {
            queue.unlock(&mut queue.lock(), organization);
        }
    }
}

/// Work without a worker is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim<W, A> {
    queue: Arc<Queue<W, A>>,
    start: Instant,
}

impl<W, A> Drop for Claim<W, A> {
    fn drop(&mut self) {
        self.queue.done(1, self.start);
    }
}

impl<W, A> Job<W, A> {
    /// Sends the answer. A caller that has given up does not get it.
    pub(crate) fn answer(self, answer: A) {
        let _ = self.reply.send((answer, self.lock));
    }
}

impl<W, A> Queue<W, A> {
    pub(crate) fn new(limits: QueueLimits, telemetry: QueueTelemetry) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: Line::default(),
                locked: BTreeMap::new(),
                under_way: 0,
                is_closed: false,
            }),
            places: Shares::new(limits.waiting_max, PARTS),
            arrived: Notify::new(),
            has_leavers: AtomicBool::new(false),
            limits,
            telemetry,
        })
    }

    /// To be called when a batch is done: others may be done without a worker again. An empty batch only tests a
    /// connection and is not counted.
    pub(crate) fn done(&self, size: usize, start: Instant) {
        if size > 0 {
            self.lock().under_way -= 1;
            self.telemetry.done(size, start.elapsed());
        }
    }

    /// Sets the gauge of waiting work.
    pub(crate) fn observe(&self) {
        self.telemetry.waiting(self.places.taken());
    }

    /// Queues a piece of work and waits for its answer. Work on one organization is done one piece after the
    /// other, each holder's in the order of arrival: the next starts when the lock that comes with the answer
    /// is dropped. If the caller gives up before a worker takes its work, it is never done.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        holder: &Holder,
        organization: Option<OrganizationId>,
        work: W,
    ) -> Result<(A, OrganizationLock<W, A>)> {
        let (reply, answer) = oneshot::channel();
        self.submit(holder, organization, work, reply)?;
        let mut caller = WaitingCaller { has_leavers: &self.has_leavers, is_answered: false };
        let answer = answer.instrument(self.span()).await;
        caller.is_answered = true;
        answer.map_err(|_| Error::Internal("a worker dropped its work".into()))
    }

    /// The right to do work without a worker, where nothing waits and nothing is under way.
    pub(crate) fn claim(
        self: &Arc<Self>,
        organization: Option<OrganizationId>,
    ) -> Option<(Claim<W, A>, OrganizationLock<W, A>)> {
        let mut state = self.lock();
        let is_locked = organization.is_some_and(|id| state.locked.contains_key(&id));
        if is_locked || state.is_closed || state.under_way > 0 || self.places.taken() > 0 {
            return None;
        }
        state.under_way += 1;
        state.locked.extend(organization.map(|organization| (organization, Line::default())));
        let claim = Claim { queue: self.clone(), start: Instant::now() };
        Some((claim, self.organization_lock(organization)))
    }

    /// The span of whoever waits for an answer.
    pub(crate) fn span(&self) -> Span {
        self.telemetry.span()
    }

    fn submit(
        &self,
        holder: &Holder,
        organization: Option<OrganizationId>,
        work: W,
        reply: oneshot::Sender<(A, OrganizationLock<W, A>)>,
    ) -> Result<()> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::Unavailable("the store is closed".into()));
        }
        let mut place = self.take_place(&state, holder, organization);
        // Only if somebody has given up: a search at each refusal would cost more than the refusal.
        if place.is_err() && self.has_leavers.swap(false, Ordering::Relaxed) {
            self.drop_leavers(&mut state);
            place = self.take_place(&state, holder, organization);
        }
        let place = place.map_err(|over| {
            // The metric counts overload, for which operators are alerted; a caller over its own share is
            // none.
            if over == Over::Whole {
                self.telemetry.refused();
            }
            refusal(over)
        })?;
        let waiting = WaitingWork { work, organization, reply, _place: place };
        let behind = organization.and_then(|organization| state.locked.get_mut(&organization));
        if let Some(behind) = behind {
            behind.push(holder.clone(), waiting);
        } else {
            state.locked.extend(organization.map(|organization| (organization, Line::default())));
            self.make_ready(&mut state, holder.clone(), waiting);
        }
        Ok(())
    }

    /// Takes a place. All callers of one organization together get no more places than one caller may have.
    fn take_place(
        &self,
        state: &State<W, A>,
        holder: &Holder,
        organization: Option<OrganizationId>,
    ) -> std::result::Result<Share<Holder>, Over> {
        let behind = organization.and_then(|organization| state.locked.get(&organization));
        // A holder with nothing behind this lock gets its first place, however many others have.
        if let Some(behind) = behind.filter(|behind| behind.has(holder)) {
            self.places.room_for_group(behind.len() + 1, 1)?;
        }
        self.places.take(holder, 1)
    }

    fn make_ready(&self, state: &mut State<W, A>, holder: Holder, waiting: WaitingWork<W, A>) {
        state.ready.push(holder, waiting);
        self.arrived.notify_one();
    }

    /// Removes work whose caller has given up.
    fn drop_leavers(&self, state: &mut State<W, A>) {
        for behind in state.locked.values_mut() {
            behind.retain(|waiting| !waiting.reply.is_closed());
        }
        let mut ended = Vec::new();
        state.ready.retain(|waiting| {
            let stays = !waiting.reply.is_closed();
            if !stays {
                ended.extend(waiting.organization);
            }
            stays
        });
        for organization in ended {
            self.unlock(state, organization);
        }
    }

    /// The next batch, once there is one. None when the queue is closed and nothing waits.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<Vec<Job<W, A>>> {
        loop {
            let arrived = self.arrived.notified();
            match self.take() {
                Some(batch) if batch.is_empty() => arrived.await,
                taken => return taken,
            }
        }
    }

    /// What a batch may have now, perhaps nothing. None where there will be no other.
    fn take(self: &Arc<Self>) -> Option<Vec<Job<W, A>>> {
        let mut state = self.lock();
        let mut batch = Vec::new();
        while batch.len() < self.limits.batch_max
            && let Some((_, waiting)) = state.ready.pop()
        {
            let WaitingWork { work, organization, reply, .. } = waiting;
            if !reply.is_closed() {
                batch.push(Job { work, reply, lock: self.organization_lock(organization) });
            } else if let Some(organization) = organization {
                self.unlock(&mut state, organization);
            }
        }
        state.under_way += usize::from(!batch.is_empty());
        if !state.ready.is_empty() {
            // More work is ready: wake another worker.
            self.arrived.notify_one();
        }
        let is_empty = self.places.taken() == 0;
        if is_empty && state.is_closed {
            self.arrived.notify_waiters();
        }
        let is_over = state.is_closed && is_empty && batch.is_empty();
        (!is_over).then_some(batch)
    }

    /// Takes all waiting work, also what waits for a lock, so that it can be failed: the database cannot be
    /// reached.
    pub(crate) fn take_all(self: &Arc<Self>) -> Vec<Job<W, A>> {
        let mut state = self.lock();
        let job =
            |WaitingWork { work, reply, .. }: WaitingWork<W, A>, lock| Job { work, reply, lock };
        let ready = state.ready.drain();
        let mut all: Vec<_> = ready
            .map(|(_, waiting)| {
                let lock = self.organization_lock(waiting.organization);
                job(waiting, lock)
            })
            .collect();
        for behind in state.locked.values_mut() {
            all.extend(behind.drain().map(|(_, waiting)| job(waiting, OrganizationLock(None))));
        }
        all
    }

    /// Refuses new work from now on; what waits is still done.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_waiters();
    }

    fn organization_lock(
        self: &Arc<Self>,
        organization: Option<OrganizationId>,
    ) -> OrganizationLock<W, A> {
        OrganizationLock(organization.map(|organization| (self.clone(), organization)))
    }

    fn unlock(&self, state: &mut State<W, A>, organization: OrganizationId) {
        let Some(behind) = state.locked.get_mut(&organization) else { return };
        let mut waiting = iter::from_fn(|| behind.pop());
        match waiting.find(|(_, waiting)| !waiting.reply.is_closed()) {
            Some((holder, next)) => self.make_ready(state, holder, next),
            None => drop(state.locked.remove(&organization)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
