//! Chance that a seed decides.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// `SplitMix64`: enough for choosing, and the same everywhere.
#[derive(Clone)]
pub(super) struct Dice(Arc<Mutex<u64>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// One of 0 to `end`, without `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Up to a time.
    pub(super) fn time_ms(&self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}
