//! A line in which holders are served in turn, and the things of each holder in the order of arrival.

use std::{
    collections::{BTreeMap, VecDeque},
    iter, mem,
};

/// Things that wait, each for a holder.
#[derive(Debug)]
pub struct Line<K, T> {
    /// Those of each holder, without holders that have none.
    waiting: BTreeMap<K, Waiting<T>>,
    /// The same holders, the next first.
    turns: VecDeque<K>,
    len: usize,
}

/// What waits for one holder. Mostly that is one thing, for which no deque is allocated.
#[derive(Debug)]
struct Waiting<T> {
    first: T,
    others: VecDeque<T>,
}

impl<T> Waiting<T> {
    fn of(mut things: VecDeque<T>) -> Option<Self> {
        Some(Self { first: things.pop_front()?, others: things })
    }

    fn into_things(self) -> impl Iterator<Item = T> {
        iter::once(self.first).chain(self.others)
    }
}

impl<K, T> Default for Line<K, T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<K: Clone + Ord, T> Line<K, T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn has(&self, holder: &K) -> bool {
        self.waiting.contains_key(holder)
    }

    /// Adds a thing behind those of its holder.
    pub fn push(&mut self, holder: K, thing: T) {
        self.len += 1;
        if let Some(waiting) = self.waiting.get_mut(&holder) {
            return waiting.others.push_back(thing);
        }
        self.turns.push_back(holder.clone());
        self.waiting.insert(holder, Waiting { first: thing, others: VecDeque::new() });
    }

    /// The first thing of the holder whose turn it is.
    pub fn pop(&mut self) -> Option<(K, T)> {
        self.pop_where(|_| true)
    }

    /// The same among the holders that may have a turn. One that may not keeps its place.
    pub fn pop_where(&mut self, mut may: impl FnMut(&K) -> bool) -> Option<(K, T)> {
        let at = self.turns.iter().position(&mut may)?;
        let holder = self.turns.remove(at)?;
        let waiting = self.waiting.get_mut(&holder)?;
        let thing = if let Some(next) = waiting.others.pop_front() {
            self.turns.push_back(holder.clone());
            mem::replace(&mut waiting.first, next)
        } else {
            self.waiting.remove(&holder)?.first
        };
        self.len -= 1;
        Some((holder, thing))
    }

    /// Drops what does not stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        let kept = mem::take(&mut self.waiting).into_iter().filter_map(|(holder, waiting)| {
            Some((holder, Waiting::of(waiting.into_things().filter(&mut stays).collect())?))
        });
        self.waiting = kept.collect();
        self.turns.retain(|holder| self.waiting.contains_key(holder));
        self.len = self.waiting.values().map(|waiting| 1 + waiting.others.len()).sum();
    }

    /// Takes all, in no order among holders.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, T)> + use<K, T> {
        self.len = 0;
        self.turns.clear();
        mem::take(&mut self.waiting).into_iter().flat_map(|(holder, waiting)| {
            waiting.into_things().map(move |thing| (holder.clone(), thing))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    fn line(things: &[(char, u32)]) -> Line<char, u32> {
        let mut line = Line::default();
        for (holder, thing) in things {
            line.push(*holder, *thing);
        }
        line
    }

    fn order(mut line: Line<char, u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.pop().map(|(_, thing)| thing)).collect()
    }

    #[test]
    fn holders_are_served_in_turn_and_each_in_the_order_of_arrival() {
        for (things, expected) in [
            (&[][..], &[][..]),
            (&[('a', 1), ('a', 2), ('a', 3)], &[1, 2, 3]),
            (&[('a', 1), ('a', 2), ('a', 3), ('b', 4), ('b', 5), ('c', 6)], &[1, 4, 6, 2, 5, 3]),
        ] {
            assert_eq!(order(line(things)), expected);
        }
    }

    #[test]
    fn a_holder_that_may_have_no_turn_keeps_its_place() {
        let mut line = line(&[('a', 1), ('a', 2), ('b', 3)]);
        assert_eq!(line.pop_where(|holder| *holder != 'a'), Some(('b', 3)));
        assert_eq!(line.pop_where(|holder| *holder == 'b'), None);
        assert_eq!((line.len(), line.has(&'a'), line.has(&'b')), (2, true, false));
        assert_eq!(order(line), [1, 2]);
    }

    #[test]
    fn what_does_not_stay_is_gone_and_all_can_be_taken() {
        let mut line = line(&[('a', 1), ('a', 2), ('b', 3), ('c', 4)]);
        line.retain(|thing| thing % 2 == 0);
        assert_eq!((line.len(), line.has(&'b')), (2, false));
        let mut all: Vec<_> = line.drain().collect();
        all.sort_unstable();
        assert_eq!((all, line.is_empty()), (vec![('a', 2), ('c', 4)], true));
        line.push('a', 5);
        assert_eq!(order(line), [5]);
    }
}
