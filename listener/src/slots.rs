//! The slots of a listener's connections. Each source has a share of them. A source over its share loses its
//! own connection that has been idle for longest, so that nobody waits for another.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use orgd_shares::{Over, Share, Shares};
use tokio::time::Instant;

use crate::{
    attention::{Attention, Reason},
    metrics::{self, Closed},
};

/// A source has one of so many parts of what others leave.
const PARTS: usize = 2;
/// How many connections are looked at for an idle one. Those that are found busy come last afterwards, so
/// that the next look begins with others.
const LOOKS_MAX: usize = 32;
/// Evicted connections that are still open may exceed the maximum by one part of so many.
const LEAVING_PART: usize = 8;
/// The value of `idle_since` while a request is under way.
const BUSY: u64 = u64::MAX;

/// Whose connection it is: none is a trusted proxy's, which has no share of its own.
type Owner = Option<IpAddr>;

#[derive(Clone, Debug)]
pub(crate) struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    listener: &'static str,
    max: usize,
    shares: Shares<Owner>,
    start: Instant,
    lines: Mutex<Lines>,
}

/// The connections of each owner that were not evicted. The key is since when each was idle when it was last
/// looked at, and a number that tells them apart.
#[derive(Debug, Default)]
struct Lines {
    of: BTreeMap<Owner, BTreeMap<(u64, u64), SlotHandle>>,
    next: u64,
}

/// Shared by a connection and its entry in [`Lines`].
#[derive(Clone, Debug)]
pub(crate) struct SlotHandle(Arc<SlotState>);

#[derive(Debug)]
struct SlotState {
    start: Instant,
    idle_since: AtomicU64,
    /// The time in its key in [`Lines`]; changed under their lock.
    listed: AtomicU64,
    attention: Attention,
}

/// A connection's slot, which is given back when the value is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: ConnectionSlots,
    owner: Owner,
    number: u64,
    handle: SlotHandle,
    _share: Share<Owner>,
}

impl ConnectionSlots {
    pub(crate) fn new(listener: &'static str, max: usize) -> Self {
        metrics::no_connections(listener);
        let (shares, start) = (Shares::new(max, PARTS), Instant::now());
        Self(Arc::new(Shared { listener, max, shares, start, lines: Mutex::default() }))
    }

    /// A slot for a new connection; none where it must be closed at once.
    pub(crate) fn admit(&self, owner: Owner) -> Option<Slot> {
        let Shared { max, shares, .. } = &*self.0;
        let over = match owner {
            Some(_) => match shares.take(&owner, 1) {
                Ok(share) => return Some(self.slot(owner, share)),
                Err(over) => over,
            },
            None if shares.taken() < *max => {
                return Some(self.slot(owner, shares.count(&owner, 1)));
            }
            None => Over::Whole,
        };
        let loser = if over == Over::Share { Some(owner) } else { shares.largest() };
        let has_room = shares.taken() < max + (max / LEAVING_PART).max(1);
        if !has_room || !loser.is_some_and(|loser| self.evict(loser)) {
            metrics::connection_closed(self.0.listener, Closed::Refused);
            return None;
        }
        metrics::connection_closed(self.0.listener, Closed::Idle);
        Some(self.slot(owner, shares.count(&owner, 1)))
    }

    fn slot(&self, owner: Owner, share: Share<Owner>) -> Slot {
        let now = since(self.0.start);
        let state = SlotState {
            start: self.0.start,
            idle_since: AtomicU64::new(now),
            listed: AtomicU64::new(now),
            attention: Attention::default(),
        };
        let handle = SlotHandle(Arc::new(state));
        let mut lines = self.lines();
        lines.next += 1;
        let number = lines.next;
        lines.of.entry(owner).or_default().insert((now, number), handle.clone());
        Slot { slots: self.clone(), owner, number, handle, _share: share }
    }

    /// Tells the owner's connection that has been idle for longest to end. False if none is found.
    fn evict(&self, owner: Owner) -> bool {
        let mut lines = self.lines();
        let Some(line) = lines.of.get_mut(&owner) else { return false };
        for _ in 0..LOOKS_MAX {
            let Some(((listed, number), handle)) = line.pop_first() else { return false };
            let idle_since = handle.0.idle_since.load(Ordering::Relaxed);
            if idle_since == listed {
                handle.0.attention.call(Reason::Leave);
                return true;
            }
            // It was used since: list it under the time since when it is idle now, or under this moment if it
            // is busy.
            let listed = if idle_since == BUSY { since(self.0.start) } else { idle_since };
            handle.0.listed.store(listed, Ordering::Relaxed);
            line.insert((listed, number), handle);
        }
        false
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub(crate) fn handle(&self) -> SlotHandle {
        self.handle.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut lines = self.slots.lines();
        let Some(line) = lines.of.get_mut(&self.owner) else { return };
        line.remove(&(self.handle.0.listed.load(Ordering::Relaxed), self.number));
        if line.is_empty() {
            lines.of.remove(&self.owner);
        }
    }
}

impl SlotHandle {
    /// Notes that a request is under way.
    pub(crate) fn busy(&self) {
        self.0.idle_since.store(BUSY, Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) {
        self.0.idle_since.store(since(self.0.start), Ordering::Relaxed);
    }

    pub(crate) fn attention(&self) -> &Attention {
        &self.0.attention
    }
}

/// Microseconds since `start`; a u64 has half a million years of them.
fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(BUSY - 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const ONE: Owner = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const OTHER: Owner = Some(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));

    async fn admit(slots: &ConnectionSlots, owner: Owner) -> Option<Slot> {
        // Of two at one time neither is idle for longer.
        advance(Duration::from_millis(1)).await;
        slots.admit(owner)
    }

    fn told(slots: &[Option<Slot>]) -> Vec<usize> {
        let is_told = |slot: &Option<Slot>| {
            slot.as_ref().is_some_and(|slot| slot.handle.0.attention.has(Reason::Leave))
        };
        (0..slots.len()).filter(|at| is_told(&slots[*at])).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_is_idle_for_longest_makes_place() {
        let slots = ConnectionSlots::new("test", 16);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(admit(&slots, ONE).await);
        }
        assert_eq!(told(&held), [0_usize; 0]);
        // The first is busy, the second was after all others, the third is the first that is idle.
        held[0].as_ref().unwrap().handle.busy();
        held[1].as_ref().unwrap().handle.busy();
        advance(Duration::from_secs(1)).await;
        held[1].as_ref().unwrap().handle.idle();
        held.push(admit(&slots, ONE).await);
        assert_eq!(told(&held), [2]);
        held[3] = None;
        held.push(admit(&slots, ONE).await);
        assert_eq!(told(&held), [2, 4], "the one that goes gives its place when it has gone");
        assert!(admit(&slots, OTHER).await.is_some());
        drop(held);
        assert!(slots.lines().of.is_empty());
        assert_eq!(slots.0.shares.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_no_idle_one_gets_no_more() {
        let slots = ConnectionSlots::new("test", 8);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(admit(&slots, ONE).await);
        }
        for slot in held.iter().flatten() {
            slot.handle.busy();
        }
        assert!(admit(&slots, ONE).await.is_none());
        assert!(admit(&slots, OTHER).await.is_some());
        held[3].as_ref().unwrap().handle.idle();
        assert!(admit(&slots, ONE).await.is_some());
        assert_eq!(told(&held), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_holder_makes_place_where_the_whole_is_full() {
        let slots = ConnectionSlots::new("test", 4);
        let mut held = vec![admit(&slots, ONE).await, admit(&slots, ONE).await];
        for _ in 0..2 {
            held.push(admit(&slots, None).await);
        }
        held[2].as_ref().unwrap().handle.busy();
        held.push(admit(&slots, OTHER).await);
        assert_eq!(told(&held).len(), 1, "one of two largest");
        assert!(held[4].is_some());
        // As many as may be about to go.
        assert!(admit(&slots, OTHER).await.is_none());
        held.retain(|slot| {
            slot.as_ref().is_some_and(|slot| !slot.handle.0.attention.has(Reason::Leave))
        });
        assert!(admit(&slots, None).await.is_some(), "a proxy has no share of its own");
    }
}
