//! How the database is used: numbers of connections, times and sizes.

use std::time::Duration;

use super::retry::ANSWER_TIME;

/// How long PostgreSQL may let a statement run, whatever an instance or a command is set to: a
/// revocation is answered when every statement that began before it is over, so all who write must
/// keep one limit.
pub const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// PostgreSQL connections at most, those that workers keep and that of upkeep among them.
    pub connections_max: u32,
    /// How long a call waits for a connection.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL lets a statement wait for a lock, and SQLite waits for another process.
    pub lock_timeout: Duration,
    /// How long PostgreSQL lets a statement run, [`STATEMENT_TIMEOUT_MAX`] at most. Shorter than the
    /// time that a call has, so that a statement which waits is not applied long after its caller was
    /// told that the deadline has passed.
    pub statement_timeout: Duration,
    /// Whether a SQLite file is created where there is none.
    pub creates: bool,
    /// Updates in one batch at most; 1: each has a commit of its own.
    pub batch_max: usize,
    /// Updates, and lookups of each kind, that wait for a worker at most.
    pub queue_max: usize,
}

impl StoreOptions {
    /// How long the answer of a server is waited for.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.statement_timeout + ANSWER_TIME
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections_max: 11,
            acquire_timeout: Duration::from_secs(1),
            lock_timeout: Duration::from_secs(1),
            statement_timeout: STATEMENT_TIMEOUT_MAX,
            creates: true,
            batch_max: 64,
            // A second's worth where each needs a commit of its own.
            queue_max: 1024,
        }
    }
}
