//! What a client sends beside its requests, and how many requests it only makes to give them up.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// Bytes that a connection may send beside its requests before it is closed. Floods of PING and SETTINGS send
/// more. This is 15,000 pings, and a hundred times the window updates for the answers of a hundred streams.
const STRAY_BYTES_MAX: u64 = 256 * 1024;
/// Bytes by which the allowance grows each second. Window updates and answers to pings come to far less.
const STRAY_BYTES_PER_SECOND: u64 = 4096;
/// Bytes by which the allowance grows at most after a long pause.
const STRAY_BYTES_BACK_MAX: u64 = 64 * 1024;
/// Requests that a client may give up, or make us give up (CVE-2023-44487, CVE-2025-8671), beyond those
/// that it lets us answer: twice as many as it may have at once. h2 counts only those that it has not yet
/// handed over.
const ABANDONED_MAX: u32 = 200;

/// Whether a connection is used for a flood.
#[derive(Debug)]
pub(crate) struct Flood {
    /// Bytes that may still come before the next request, and when this was last computed.
    allowance: u64,
    reckoned: Instant,
    /// Requests that ended without their answers, less those that had one.
    abandoned: u32,
}

impl Flood {
    pub(crate) fn new(now: Instant) -> Self {
        Self { allowance: STRAY_BYTES_MAX, reckoned: now, abandoned: 0 }
    }

    /// Whether more came than the requests account for, or requests come only to be given up.
    pub(crate) fn is_one(&self) -> bool {
        self.allowance == 0 || self.abandoned > ABANDONED_MAX
    }

    pub(crate) fn bytes_read(&mut self, now: Instant, count: usize) {
        let seconds = (now - self.reckoned).as_secs();
        self.reckoned += Duration::from_secs(seconds);
        let back = (seconds * STRAY_BYTES_PER_SECOND).min(STRAY_BYTES_BACK_MAX);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.allowance = (self.allowance + back).saturating_sub(count);
    }

    /// Adds to the allowance the bytes that a request may have.
    pub(crate) fn request_started(&mut self, limits: &Limits) {
        let own = u64::from(limits.header_bytes_max) + u64::from(limits.body_bytes_max);
        // Capped, so that requests before do not save up an allowance for a flood.
        let max = STRAY_BYTES_MAX + u64::from(limits.streams_max) * own;
        self.allowance = (self.allowance + own).min(max);
    }

    pub(crate) fn request_ended(&mut self, is_answered: bool) {
        self.abandoned = if is_answered {
            self.abandoned.saturating_sub(1)
        } else {
            self.abandoned.saturating_add(1)
        };
    }

    /// The body of a request broke off: nobody will take its answer, should there be one.
    pub(crate) fn request_broken(&mut self) {
        self.abandoned = self.abandoned.saturating_add(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 1,
        streams_max: 100,
        header_bytes_max: 1000,
        body_bytes_max: 9000,
        header_read_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        stall_timeout: Duration::ZERO,
        connection_age_max: Duration::ZERO,
        connection_age_grace: Duration::ZERO,
        request_deadline: Duration::ZERO,
    };

    #[test]
    fn more_bytes_than_requests_and_time_account_for_are_a_flood() {
        for (requests, seconds, bytes, expected) in [
            (0, 0, 262_143, false),
            (0, 0, 262_144, true),
            (1, 0, 272_143, false),
            (1, 0, 272_144, true),
            // As many as there may be at once.
            (1000, 0, 1_262_143, false),
            (1000, 0, 1_262_144, true),
            (0, 2, 270_335, false),
            (0, 2, 270_336, true),
            // Not more than comes back at once.
            (0, 3600, 327_680, true),
        ] {
            let start = Instant::now();
            let mut flood = Flood::new(start);
            for _ in 0..requests {
                flood.request_started(&LIMITS);
            }
            flood.bytes_read(start + Duration::from_secs(seconds), bytes);
            assert_eq!(flood.is_one(), expected, "{requests} {seconds} {bytes}");
        }
    }

    #[test]
    fn requests_that_are_only_given_up_are_a_flood() {
        for (answered, given_up, broken, expected) in [
            (0, 200, 0, false),
            (0, 201, 0, true),
            (0, 0, 100, false),
            (0, 0, 101, true),
            (100, 300, 0, false),
            (100, 301, 0, true),
        ] {
            let mut flood = Flood::new(Instant::now());
            (0..given_up).for_each(|_| flood.request_ended(false));
            (0..broken).for_each(|_| flood.request_broken());
            (0..answered).for_each(|_| flood.request_ended(true));
            assert_eq!(flood.is_one(), expected, "{answered} {given_up} {broken}");
        }
    }
}
