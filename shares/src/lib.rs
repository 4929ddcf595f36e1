//! Fair shares of what is scarce: places in a queue, connections, bytes, watches. The crate does not know
//! what is shared.
//!
//! A holder's share is one part, of so many, of what all others leave. So nobody can take all, however
//! many try: with two parts one holder has half at most, two have a third each, ten have an eleventh each,
//! and the next who comes finds as much free. Nobody need be told how many holders there are.

#![forbid(unsafe_code)]

mod line;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use line::Line;
use tokio::{sync::oneshot, time::timeout};

/// How long a line is at least before it is searched for those who have given up.
const SWEEP_AT_MIN: usize = 1024;

/// The shortest time that a holder over its share waits for its turn, before it is refused: as long as a
/// refused caller is told to wait.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// How long a holder over its share waits: 1 to 2 s at random, so that those who came together are not
/// refused together, and do not come back together.
#[must_use]
pub fn patience() -> Duration {
    spread(PATIENCE_MIN, 1.0..2.0)
}

/// A random time between `start` and `end` times this one.
#[must_use]
pub fn spread(time: Duration, Range { start, end }: Range<f64>) -> Duration {
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    time.mul_f64(start + (end - start) * random)
}

/// Whose share something comes out of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A caller that is known, by its subject.
    Principal(Arc<str>),
    /// A caller that is not known yet, by the network that it comes from.
    Source(IpAddr),
    Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It has its share.
    Share,
    /// All is taken, much of it by others.
    Whole,
}

/// A limited amount of something, of which each holder may have a share.
pub struct Shares<K: Clone + Ord>(Arc<Shared<K>>);

struct Shared<K: Clone + Ord> {
    max: usize,
    parts: usize,
    state: Mutex<State<K>>,
}

struct State<K: Clone + Ord> {
    taken: usize,
    /// Without those that hold nothing.
    held: BTreeMap<K, usize>,
    waiting: Line<K, oneshot::Sender<Share<K>>>,
    /// How long the line is when it is next searched for those who have given up.
    sweep_at: usize,
}

/// What a holder has taken; given back when the value is dropped.
pub struct Share<K: Clone + Ord> {
    shares: Shares<K>,
    holder: K,
    count: usize,
}

impl<K: Clone + Ord> Shares<K> {
    /// `max` in all, of which a holder may have one of `parts` of what others leave, but always one.
    #[must_use]
    pub fn new(max: usize, parts: usize) -> Self {
        let (held, waiting) = (BTreeMap::new(), Line::default());
        let state = State { taken: 0, held, waiting, sweep_at: SWEEP_AT_MIN };
        Self(Arc::new(Shared { max, parts: parts.max(1), state: Mutex::new(state) }))
    }

    /// Takes `count`, if the holder's share has it.
    pub fn take(&self, holder: &K, count: usize) -> Result<Share<K>, Over> {
        let mut state = self.lock();
        self.0.room(&state, holder, count)?;
        Ok(self.give(&mut state, holder.clone(), count))
    }

    /// Takes `count` without a check: for what exists already and only has to be counted.
    #[must_use]
    pub fn count(&self, holder: &K, count: usize) -> Share<K> {
        self.give(&mut self.lock(), holder.clone(), count)
    }

    /// Takes one as soon as the holder's share has it. Among those who wait, holders are served in turn,
    /// and each holder in the order of arrival. Whoever gives up leaves the line.
    pub async fn wait(&self, holder: &K) -> Share<K> {
        let turn = {
            let mut state = self.lock();
            if let Some(share) = self.at_once(&mut state, holder) {
                return share;
            }
            let (sender, turn) = oneshot::channel();
            // Else those who have given up would be there until somebody gives something back.
            if state.waiting.len() >= state.sweep_at {
                state.waiting.retain(|waiting| !waiting.is_closed());
                state.sweep_at = 2 * state.waiting.len().max(SWEEP_AT_MIN);
            }
            state.waiting.push(holder.clone(), sender);
            turn
        };
        match turn.await {
            Ok(share) => share,
            // Cannot happen: a sender is dropped only after it has sent, or once its receiver is gone.
            Err(_) => self.count(holder, 1),
        }
    }

    /// Waits as [`Self::wait`] does, for [`patience`] and for `longest` at most. Then it fails, and the error
    /// says why.
    pub async fn wait_at_most(&self, longest: Duration, holder: &K) -> Result<Share<K>, Over> {
        // First without a timeout: to choose one asks the system for a random number.
        if let Some(share) = self.at_once(&mut self.lock(), holder) {
            return Ok(share);
        }
        match timeout(patience().min(longest), self.wait(holder)).await {
            Ok(share) => Ok(share),
            Err(_) => self.take(holder, 1),
        }
    }

    /// Whether a group of holders that has taken `held` together may take `count` more, as if it were one
    /// holder.
    pub fn room_for_group(&self, held: usize, count: usize) -> Result<(), Over> {
        self.0.room_beside(self.taken(), held, count)
    }

    #[must_use]
    pub fn is_used_up(&self, holder: &K) -> bool {
        self.0.room(&self.lock(), holder, 1).is_err()
    }

    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().taken
    }

    #[must_use]
    pub fn largest(&self) -> Option<K> {
        let state = self.lock();
        state.held.iter().max_by_key(|(_, held)| **held).map(|(holder, _)| holder.clone())
    }

    /// Takes one without waiting, unless the holder already waits for another.
    fn at_once(&self, state: &mut State<K>, holder: &K) -> Option<Share<K>> {
        let may = !state.waiting.has(holder) && self.0.room(state, holder, 1).is_ok();
        may.then(|| self.give(state, holder.clone(), 1))
    }

    fn give(&self, state: &mut State<K>, holder: K, count: usize) -> Share<K> {
        state.taken += count;
        *state.held.entry(holder.clone()).or_default() += count;
        Share { shares: self.clone(), holder, count }
    }

    /// Takes back, and hands on to those who wait.
    fn take_back(&self, holder: &K, count: usize) {
        let mut handed_on = Vec::new();
        {
            let mut state = self.lock();
            state.taken -= count;
            if let Some(held) = state.held.get_mut(holder) {
                *held -= count;
                if *held == 0 {
                    state.held.remove(holder);
                }
            }
            while let Some((next, turn)) = self.0.next(&mut state) {
                if !turn.is_closed() {
                    handed_on.push((turn, self.give(&mut state, next, 1)));
                }
            }
        }
        for (turn, share) in handed_on {
            // If the receiver has given up meanwhile, the share is dropped here, and so given back.
            let _ = turn.send(share);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Ord> Shared<K> {
    fn room(&self, state: &State<K>, holder: &K, count: usize) -> Result<(), Over> {
        let held = state.held.get(holder).copied().unwrap_or_default();
        self.room_beside(state.taken, held, count)
    }

    /// Of `taken`, the holder that asks has `held`.
    fn room_beside(&self, taken: usize, held: usize, count: usize) -> Result<(), Over> {
        let others = taken.saturating_sub(held);
        let share = (self.max.saturating_sub(others) / self.parts).max(1);
        if held.saturating_add(count) > share {
            return Err(Over::Share);
        }
        if taken.saturating_add(count) > self.max {
            return Err(Over::Whole);
        }
        Ok(())
    }

    /// The next that may have one.
    fn next(&self, state: &mut State<K>) -> Option<(K, oneshot::Sender<Share<K>>)> {
        if state.taken >= self.max {
            return None;
        }
        let mut waiting = std::mem::take(&mut state.waiting);
        let next = waiting.pop_where(|holder| self.room(state, holder, 1).is_ok());
        state.waiting = waiting;
        next
    }
}

impl<K: Clone + Ord> Drop for Share<K> {
    fn drop(&mut self) {
        self.shares.take_back(&self.holder, self.count);
    }
}

impl<K: Clone + Ord> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Ord> fmt::Debug for Shares<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Shares({} of {})", self.taken(), self.0.max)
    }
}

impl<K: Clone + Ord> fmt::Debug for Share<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Share({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::{Over, Share, Shares};

    /// Takes one after the other until there is no more.
    fn fill(shares: &Shares<u32>, holder: u32) -> Vec<Share<u32>> {
        std::iter::from_fn(|| shares.take(&holder, 1).ok()).collect()
    }

    #[test]
    fn a_holder_has_one_part_of_what_others_leave_and_always_one() {
        for (max, parts, holders, expected) in [
            (1000, 2, 1, &[500][..]),
            (1000, 2, 3, &[500, 250, 125]),
            (1000, 10, 2, &[100, 90]),
            (4, 2, 5, &[2, 1, 1, 0, 0]),
            (1, 2, 2, &[1, 0]),
            (1, 10, 1, &[1]),
            (0, 2, 1, &[0]),
        ] {
            let shares = Shares::new(max, parts);
            let held: Vec<_> = (0..holders).map(|holder| fill(&shares, holder)).collect();
            let counts: Vec<_> = held.iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{max} in {parts} parts");
            assert_eq!(shares.taken(), counts.iter().sum::<usize>());
            drop(held);
            assert_eq!(shares.taken(), 0);
        }
    }

    #[test]
    fn those_who_take_again_and_again_end_with_equal_shares() {
        let shares = Shares::new(1100, 2);
        let mut held: Vec<Vec<_>> = (0..10).map(|_| Vec::new()).collect();
        for _ in 0..100 {
            for (holder, held) in (0..).zip(&mut held) {
                held.extend(fill(&shares, holder));
                // Work goes on: a third of what each has ends.
                held.truncate(held.len() * 2 / 3);
            }
        }
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert!(counts.iter().all(|count| (50..=110).contains(count)), "{counts:?}");
        assert!(shares.take(&99, 40).is_ok(), "there is something left for who comes last");
    }

    #[test]
    fn the_refusal_tells_ones_own_share_from_a_whole_that_others_have() {
        let shares = Shares::new(2, 1);
        let held = fill(&shares, 1);
        assert_eq!(held.len(), 2);
        assert_eq!(shares.take(&1, 1).map(|_| ()), Err(Over::Share));
        assert_eq!(shares.take(&2, 1).map(|_| ()), Err(Over::Whole));
        assert!(shares.is_used_up(&1));
        assert_eq!(shares.largest(), Some(1));
    }

    #[test]
    fn what_is_only_counted_may_be_too_much() {
        let shares = Shares::new(10, 2);
        let counted = shares.count(&1, 40);
        assert_eq!((shares.taken(), shares.is_used_up(&1)), (40, true));
        drop(counted);
        assert_eq!((shares.taken(), shares.is_used_up(&1)), (0, false));
    }

    #[test]
    fn holders_that_wait_are_served_in_turn_and_who_gives_up_leaves_the_line() {
        let shares = Shares::new(1, 2);
        let first = shares.take(&1, 1).ok();
        let mut waiting: Vec<_> = [1, 1, 1, 2, 3]
            .map(|holder| {
                let shares = shares.clone();
                Box::pin(async move { shares.wait(&holder).await })
            })
            .into();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let mut served = Vec::new();
        let mut gone = waiting.remove(1);
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        drop(first);
        let holders = [1, 1, 2, 3];
        while !waiting.is_empty() {
            let mut holder = None;
            let mut share = None;
            for (at, turn) in waiting.iter_mut().enumerate() {
                if let Some(given) = turn.now_or_never() {
                    (holder, share) = (Some(at), Some(given));
                    break;
                }
            }
            let Some(at) = holder else { break };
            served.push(share.as_ref().map(|share| share.holder));
            drop(waiting.remove(at));
            drop(share);
        }
        assert_eq!(served, [Some(1), Some(2), Some(3), Some(1)], "of {holders:?}");
        assert_eq!(shares.taken(), 0);
    }
}
