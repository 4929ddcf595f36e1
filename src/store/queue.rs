//! Work that waits while every lane is busy, and is then done together. Decides what is in one
//! batch, for reads and for writes, on both databases.
//!
//! Nobody waits for company: work that finds a free lane is a batch of its own. Knows no SQL.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, oneshot};
use tracing::Instrument;

use crate::{
    domain::{Error, OrganizationId, Result},
    telemetry::metrics::QueueTelemetry,
};

/// How much may wait, and how much of it is done at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Pieces of work that wait; more are refused.
    pub(super) waiting_max: usize,
    /// Pieces of work in one batch.
    pub(super) batch_max: usize,
    /// Pieces of work that must wait before a lane begins; then all that wait are done. More than
    /// one only in tests, to make batches certain.
    pub(super) hold: usize,
}

/// Work of the type `W` that waits for an answer of the type `A`.
#[derive(Debug)]
pub(super) struct Queue<W, A> {
    state: Mutex<State<W, A>>,
    arrived: Notify,
    /// Whether somebody has given up since the queue was last searched for such.
    has_leavers: AtomicBool,
    limits: QueueLimits,
    telemetry: QueueTelemetry,
}

/// Somebody who waits for an answer; dropped before it is there, the waiting was given up.
struct Asking<'a> {
    has_leavers: &'a AtomicBool,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.has_leavers.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct State<W, A> {
    /// Work that the next batch may have: no two pieces on one organization.
    ready: VecDeque<Job<W, A>>,
    /// Organizations that have a turn under way, and the work that waits for its end, in the order
    /// of arrival.
    turns: BTreeMap<OrganizationId, VecDeque<Waiting<W, A>>>,
    /// Pieces of work in `ready` and `turns`.
    waiting: usize,
    /// Whether the held lanes have been let go, until nothing waits any more.
    is_let_go: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting<W, A> {
    work: W,
    asker: oneshot::Sender<(A, Turn<W, A>)>,
}

/// What a lane took out of the queue.
struct Taken<W, A> {
    /// May be empty.
    batch: Vec<Job<W, A>>,
    /// Work before it that nobody waits for any more.
    given_up: Vec<Job<W, A>>,
    /// Whether there will be no other batch.
    is_over: bool,
}

/// A piece of work that a lane has to answer. Dropped without an answer, it is a fault.
#[derive(Debug)]
pub(super) struct Job<W, A> {
    pub(super) work: W,
    asker: oneshot::Sender<(A, Turn<W, A>)>,
    turn: Turn<W, A>,
}

/// The right to be the only one at work on an organization; it ends with the value.
#[derive(Debug)]
pub(super) struct Turn<W, A>(Option<(Arc<Queue<W, A>>, OrganizationId)>);

impl<W, A> Drop for Turn<W, A> {
    fn drop(&mut self) {
        if let Some((queue, organization)) = self.0.take() {
            queue.end_turn(organization);
        }
    }
}

impl<W, A> Job<W, A> {
    /// Hands over the answer, where somebody still waits for it.
    pub(super) fn answer(self, answer: A) {
        let _ = self.asker.send((answer, self.turn));
    }
}

impl<W, A> Queue<W, A> {
    pub(super) fn new(limits: QueueLimits, telemetry: QueueTelemetry) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                turns: BTreeMap::new(),
                waiting: 0,
                is_let_go: false,
                is_closed: false,
            }),
            arrived: Notify::new(),
            has_leavers: AtomicBool::new(false),
            limits,
            telemetry,
        })
    }

    /// A batch of this size was done.
    pub(super) fn done(&self, size: usize, begin: Instant) {
        if size > 0 {
            self.telemetry.done(size, begin.elapsed());
        }
    }

    /// Sets the metric of what waits.
    pub(super) fn observe(&self) {
        let waiting = self.lock().waiting;
        self.telemetry.waiting(waiting);
    }

    /// Waits for the answer to a piece of work. Work on one organization is done one after the
    /// other, in the order of arrival; the next begins when the turn that comes with the answer is
    /// dropped. Whoever gives up while its work waits takes it out of the queue.
    pub(super) async fn ask(
        self: &Arc<Self>,
        organization: Option<OrganizationId>,
        work: W,
    ) -> Result<(A, Turn<W, A>)> {
        let (asker, answer) = oneshot::channel();
        self.submit(organization, Waiting { work, asker })?;
        let mut asking = Asking { has_leavers: &self.has_leavers, is_answered: false };
        let answer = answer.instrument(self.telemetry.span()).await;
        asking.is_answered = true;
        answer.map_err(|_| Error::Internal("a lane dropped its work".into()))
    }

    fn submit(
        self: &Arc<Self>,
        organization: Option<OrganizationId>,
        waiting: Waiting<W, A>,
    ) -> Result<()> {
        let given_up = self.make_room();
        // Outside of the lock: they end turns.
        drop(given_up);
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::Unavailable("the store is closed".into()));
        }
        if state.waiting >= self.limits.waiting_max {
            self.telemetry.refused();
            return Err(Error::Overloaded);
        }
        state.waiting += 1;
        match organization {
            Some(organization) if state.turns.contains_key(&organization) => {
                state.turns.entry(organization).or_default().push_back(waiting);
            }
            Some(organization) => {
                state.turns.insert(organization, VecDeque::new());
                self.make_ready(&mut state, waiting, Some(organization));
            }
            None => self.make_ready(&mut state, waiting, None),
        }
        if !state.is_let_go && state.waiting >= self.limits.hold {
            state.is_let_go = true;
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn make_ready(
        self: &Arc<Self>,
        state: &mut State<W, A>,
        Waiting { work, asker }: Waiting<W, A>,
        organization: Option<OrganizationId>,
    ) {
        let turn = Turn(organization.map(|organization| (self.clone(), organization)));
        state.ready.push_back(Job { work, asker, turn });
        self.arrived.notify_one();
    }

    /// Takes what nobody waits for any more out of a queue that is full. Searched only where there
    /// can be such: at each refusal the search would cost more than the refusal.
    fn make_room(&self) -> Vec<Job<W, A>> {
        let mut state = self.lock();
        let is_full = state.waiting >= self.limits.waiting_max;
        if !is_full || !self.has_leavers.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        for behind in state.turns.values_mut() {
            behind.retain(|waiting| !waiting.asker.is_closed());
        }
        let (given_up, ready): (VecDeque<_>, VecDeque<_>) =
            state.ready.drain(..).partition(|job| job.asker.is_closed());
        state.ready = ready;
        state.waiting = state.ready.len() + state.turns.values().map(VecDeque::len).sum::<usize>();
        given_up.into()
    }

    /// The next batch, once there is one. None when the queue is closed and nothing waits.
    pub(super) async fn next(&self) -> Option<Vec<Job<W, A>>> {
        loop {
            let arrived = self.arrived.notified();
            let Taken { batch, given_up, is_over } = self.take();
            drop(given_up);
            if !batch.is_empty() {
                return Some(batch);
            }
            if is_over {
                return None;
            }
            arrived.await;
        }
    }

    fn take(&self) -> Taken<W, A> {
        let mut state = self.lock();
        let (mut batch, mut given_up) = (Vec::new(), Vec::new());
        state.is_let_go |= state.is_closed;
        while state.is_let_go
            && batch.len() < self.limits.batch_max
            && let Some(job) = state.ready.pop_front()
        {
            state.waiting -= 1;
            if job.asker.is_closed() { given_up.push(job) } else { batch.push(job) }
        }
        if state.is_let_go && !state.ready.is_empty() {
            // For another lane.
            self.arrived.notify_one();
        }
        if state.waiting == 0 {
            state.is_let_go = false;
            if state.is_closed {
                self.arrived.notify_waiters();
            }
        }
        Taken { batch, given_up, is_over: state.is_closed && state.waiting == 0 }
    }

    /// Takes all that waits, which no lane can do; also what waits for a turn.
    pub(super) fn take_all(&self) -> Vec<Job<W, A>> {
        let mut state = self.lock();
        state.waiting = 0;
        let mut all: Vec<_> = state.ready.drain(..).collect();
        for behind in state.turns.values_mut() {
            let without_turn = |Waiting { work, asker }| Job { work, asker, turn: Turn(None) };
            all.extend(behind.drain(..).map(without_turn));
        }
        all
    }

    /// Refuses new work from now on; what waits is still done.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_waiters();
    }

    fn end_turn(self: &Arc<Self>, organization: OrganizationId) {
        let mut state = self.lock();
        while let Some(behind) = state.turns.get_mut(&organization) {
            let Some(next) = behind.pop_front() else {
                state.turns.remove(&organization);
                return;
            };
            if next.asker.is_closed() {
                state.waiting -= 1;
            } else {
                return self.make_ready(&mut state, next, Some(organization));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
