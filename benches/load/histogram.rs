//! Latencies in a histogram of fixed size: exact below a millisecond, to 0.2 % above.

use std::time::Duration;

/// Bits of a latency that are kept; below 2 to this power every microsecond has its own bucket.
const BITS: u32 = 10;
const EXACT: u64 = 1 << BITS;
const HALF: u64 = EXACT / 2;
/// Latencies up to 2^32 µs, which is more than an hour.
const BUCKETS: usize = (EXACT + (32 - BITS as u64) * HALF) as usize;

pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    pub fn record(&mut self, latency: Duration) {
        let micros = latency.as_micros().min(u128::from(u32::MAX)) as u64;
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency in milliseconds that this share of the requests does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.map_or(0.0, |bucket| largest(bucket as u64) as f64 / 1000.0)
    }
}

fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    let shift = u64::from(bits.saturating_sub(BITS));
    (shift * HALF + (micros >> shift)) as usize
}

/// The largest latency of a bucket, in microseconds.
fn largest(bucket: u64) -> u64 {
    if bucket < EXACT {
        return bucket;
    }
    let shift = bucket / HALF - 1;
    ((bucket - shift * HALF + 1) << shift) - 1
}
