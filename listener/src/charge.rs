//! A charge counts bytes while a client holds them: for its source or its caller, and for its connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use orgd_shares::Share;

use crate::{
    attention::{Attention, Reason},
    budget::{Budget, Client},
    forwarded::Source,
};

/// What a client holds by one connection, and how much it may.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    held: AtomicUsize,
    attention: Attention,
}

impl ConnectionBudget {
    pub(crate) fn new(max: usize, attention: Attention) -> Self {
        Self(Arc::new(Shared { max, held: AtomicUsize::new(0), attention }))
    }

    /// The client holds more than its share, and this connection is its own.
    fn note_greedy(&self) {
        self.0.attention.call(Reason::Greedy);
    }

    /// Whether the client was found to hold more than its share.
    pub(crate) fn is_greedy(&self) -> bool {
        self.0.attention.has(Reason::Greedy)
    }
}

/// Bytes that are charged to a client and its connection, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    connection: ConnectionBudget,
    bytes: usize,
    _share: Arc<Share<Client>>,
}

impl Charge {
    pub(crate) fn start(
        connection: &ConnectionBudget,
        share: Arc<Share<Client>>,
        bytes: usize,
    ) -> Self {
        let before = connection.0.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > connection.0.max {
            connection.note_greedy();
        }
        Self { connection: connection.clone(), bytes, _share: share }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.connection.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) budget: Budget,
    pub(crate) source: Source,
    pub(crate) connection: ConnectionBudget,
    /// Whether the connection is a proxy's, which does not end for what one of its clients does.
    pub(crate) is_proxied: bool,
}

impl Origin {
    /// Charges bytes to the source, and tells whether it is within its share. If not, its own connection
    /// ends; a proxy's does not.
    pub(crate) fn charge(&self, bytes: usize) -> (Charge, bool) {
        let (share, is_within) = self.budget.request(self.source, bytes);
        if !is_within && !self.is_proxied {
            self.connection.note_greedy();
        }
        (Charge::start(&self.connection, share.into(), bytes), is_within)
    }
}
