//! What is known of a request before it is routed, and the limits of a request.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use orgd_listener::Source;

use crate::{rate_limit::RateLimit, telemetry::RequestRecord};

#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// The time of a request whose caller brings no deadline, and the longest that one may bring.
    pub deadline: Duration,
    pub body_bytes_max: usize,
    pub sources: Option<Arc<RateLimit<IpAddr>>>,
    /// How often a stream without news sends a heartbeat.
    pub heartbeat: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) request_id: HeaderValue,
    pub(super) deadline: Instant,
    pub(super) record: RequestRecord,
    pub(super) source: Option<Source>,
    /// The rate-limit headers of the service's answer.
    pub(super) limit_status: Arc<OnceLock<HeaderMap>>,
}
