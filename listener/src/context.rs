//! What all connections of a listener have in common, and whose each of them is.

use std::{fmt, net::IpAddr};

use axum::Router;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::Budget, forwarded::Networks, limits::Limits, protocol::Protocol, slots::SlotHandle,
};

/// The steps in which connections are told to end.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Answers over HTTP/1 say that they are their connection's last: else a client could send its
    /// next request just when the connection is closed.
    pub leave: CancellationToken,
    /// No new connection, no new request.
    pub stop: CancellationToken,
    /// Whatever is still under way ends.
    pub end: CancellationToken,
}

pub struct ListenerContext {
    /// The listener's name in logs and metrics.
    pub name: &'static str,
    pub protocol: Protocol,
    /// None where plain text is spoken.
    pub tls: Option<TlsAcceptor>,
    pub router: Router,
    pub limits: Limits,
    /// What clients hold, on this listener and on others with the same budget.
    pub budget: Budget,
    /// The proxies that are believed about whom they ask for.
    pub proxies: Networks,
    /// Whether each connection begins with the PROXY protocol, so that only these proxies may connect.
    pub has_proxy_protocol: bool,
    pub stages: Stages,
}

impl fmt::Debug for ListenerContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ListenerContext").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Whether it is a trusted proxy's: such a connection has many clients, and does not end for what one of
    /// them does.
    pub(crate) is_proxy: bool,
    pub(crate) slot: SlotHandle,
}
