//! What every call passes before and after its RPC, whichever way it came: the deadline, authentication, rate
//! limits, the catching of panics, and the pause before a refusal of who asks too much.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt;
use http::{Extensions, HeaderMap};
use orgd_listener::{CallerBudget, Source};
use orgd_shares::{Holder, patience};
use tokio::time::{sleep, timeout_at};
use tonic::Status;

use super::{limits::CallLimits, method::Method, status};
use crate::{
    auth::Authenticator,
    domain::{CredentialDigest, Error, Principal},
    proto::{COUNTED, timeout as grpc_timeout},
    rate_limit::RateLimitStatus,
    telemetry::RequestRecord,
};

pub(super) struct Checks {
    pub(super) authenticator: Authenticator,
    pub(super) limits: CallLimits,
}

/// A call whose caller is known and may call now.
pub(super) struct Admitted {
    pub(super) principal: Arc<Principal>,
    limit_statuses: Vec<RateLimitStatus>,
    method: Method,
    deadline: Instant,
}

impl Checks {
    /// When a call has to be answered.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Result<Instant, Status> {
        let time = grpc_timeout::within(headers, self.limits.deadline);
        Ok(Instant::now() + time.map_err(|_| status::malformed_timeout())?)
    }

    /// Authenticates by the headers alone, as the message is not read before.
    pub(super) async fn admitted(
        &self,
        method: Method,
        headers: &HeaderMap,
        extensions: &Extensions,
        deadline: Instant,
    ) -> Result<Admitted, Status> {
        let admitting = self.within_limits(method, headers, extensions);
        let (principal, limit_statuses) = timeout_at(deadline.into(), admitting)
            .await
            .unwrap_or_else(|_| Err(status::deadline_exceeded(false)))?;
        Ok(Admitted { principal, limit_statuses, method, deadline })
    }

    /// Authenticates the caller and checks its rate limits. Returns the principal and the status of each limit.
    async fn within_limits(
        &self,
        method: Method,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<(Arc<Principal>, Vec<RateLimitStatus>), Status> {
        let Self { authenticator, limits } = self;
        if extensions.get().is_some_and(CallerBudget::is_exhausted) {
            return Err(status::of(Error::ShareExhausted));
        }
        let mut limit_statuses = Vec::new();
        let source = extensions.get().map(|Source(source)| *source);
        if let (Some(sources), Some(source)) = (&limits.sources, source) {
            limit_statuses.push(within_rate(sources.check(&source))?);
        }
        let holder = source.map_or(Holder::Process, Holder::Source);
        let principal = authenticator.authenticate(&holder, headers).await.map_err(status::of)?;
        let credential = principal.credential.as_ref().map(CredentialDigest::short_id);
        if let Some(record) = extensions.get::<RequestRecord>() {
            record.set_caller(principal.subject.clone(), credential);
        }
        if method.is_free() && !headers.contains_key(COUNTED) {
            // A gateway asks this before the call that is counted. The answer to that one reports the limits.
            return Ok((principal, Vec::new()));
        }
        if let Some(principals) = limits.principals.of(principal.role) {
            limit_statuses.push(within_rate(principals.check(&principal.subject))?);
        }
        Ok((principal, limit_statuses))
    }
}

impl Admitted {
    /// The answer of the call's RPC, if it comes in time. What it says of the rate limits goes to the headers
    /// that `headers` finds.
    pub(super) async fn call<A>(
        self,
        rpc: impl Future<Output = Result<A, Status>>,
        headers: impl FnOnce(&mut A) -> &mut HeaderMap,
    ) -> Result<A, Status> {
        let calling = AssertUnwindSafe(rpc).catch_unwind();
        let mut answer = match timeout_at(self.deadline.into(), calling).await {
            Ok(Ok(answer)) => answer,
            // The panic hook has logged it; its text is not for the caller.
            Ok(Err(_)) => Err(status::panicked()),
            Err(_) => return Err(status::deadline_exceeded(self.method.is_change())),
        };
        let headers = match &mut answer {
            Ok(answer) => headers(answer),
            Err(refusal) => refusal.metadata_mut().as_mut(),
        };
        for limit_status in self.limit_statuses {
            limit_status.write(headers);
        }
        answer
    }
}

/// Delays a refusal that its caller caused: a client that comes back at once, whatever it was told, would
/// else use up the processors.
pub(super) async fn rest(refusal: &Status, deadline: Instant) {
    if status::is_of_own_making(refusal) {
        let left = deadline.saturating_duration_since(Instant::now());
        // Boxed: else the future of every call would have the size of this rare case.
        Box::pin(sleep(patience().min(left / 2))).await;
    }
}

/// A caller's limit status, or the refusal where it called too often.
pub(super) fn within_rate(limit_status: RateLimitStatus) -> Result<RateLimitStatus, Status> {
    match limit_status.wait {
        Some(wait) => Err(status::rate_limited(wait, &limit_status)),
        None => Ok(limit_status),
    }
}
