//! The rests between retries: each at most twice as long as the one before, with full jitter.

use std::{iter, time::Duration};

use orgd_shares::spread;

/// Rests without end: at most `first`, twice that and so on, `longest` at most. Each is a random part of
/// its maximum, so that those who lost to each other do not meet again. Asked for only when one is due: random
/// numbers come from the system.
pub(crate) fn rests(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> {
    maxima(first, longest).map(|longest| spread(longest, 0.0..1.0))
}

fn maxima(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> {
    iter::successors(Some(first), |rest| Some(rest.saturating_mul(2)))
        .map(move |rest| rest.min(longest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{maxima, rests};

    #[test]
    fn each_rest_may_be_twice_as_long_as_the_one_before_up_to_the_longest() {
        for (first, longest, expected) in [
            (10, u64::MAX, [10, 20, 40, 80, 160, 320, 640]),
            (100, 30_000, [100, 200, 400, 800, 1_600, 3_200, 6_400]),
            (10, 70, [10, 20, 40, 70, 70, 70, 70]),
            (0, 1, [0; 7]),
        ] {
            let [first, longest] = [first, longest].map(Duration::from_millis);
            let found: Vec<_> = maxima(first, longest).take(7).collect();
            assert_eq!(found, expected.map(Duration::from_millis));
        }
        // Without end, and without an overflow.
        assert_eq!(maxima(Duration::from_secs(1), Duration::MAX).nth(1_000), Some(Duration::MAX));
    }

    #[test]
    fn a_rest_is_any_part_of_its_maximum() {
        let second = Duration::from_secs(1);
        let rests: Vec<_> = rests(second, second).take(1_000).collect();
        assert!(rests.iter().all(|rest| *rest <= second));
        // With a chance of 1 in 10^45 that one of these does not hold.
        assert!(rests.iter().any(|rest| *rest < second / 10));
        assert!(rests.iter().any(|rest| *rest > second / 10 * 9));
    }
}
