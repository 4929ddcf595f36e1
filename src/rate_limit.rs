//! Rate limits: how often one caller may call, and what it is told of that. Both APIs
//! use it: sources are counted where a request comes in, principals where they are authenticated.

use std::{fmt, hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::metrics::{self, RateScope};

/// The headers of draft-ietf-httpapi-ratelimit-headers.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What the limit is.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Limiter<K> =
    RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// How many calls may come at once, counted in seconds of the limit: a caller that was quiet may catch up.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// A limit on the calls of each caller, of whom `K` is the name: so many a second, and twice as many at once.
pub struct RateLimit<K: Clone + Eq + Hash> {
    scope: RateScope,
    per_second: NonZeroU32,
    limiter: Limiter<K>,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    /// A limit of so many calls a second; none for zero.
    #[must_use]
    pub fn new(scope: RateScope, per_second: u32) -> Option<Arc<Self>> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = per_second.saturating_mul(BURST_SECONDS);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::keyed(quota).with_middleware();
        Some(Arc::new(Self { scope, per_second, limiter }))
    }

    /// Counts a call.
    pub fn check(&self, caller: &K) -> RateLimitStatus {
        let (left, wait) = match self.limiter.check_key(caller) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => {
                metrics::rate_limited(self.scope);
                (0, Some(until.wait_time_from(DefaultClock::default().now())))
            }
        };
        RateLimitStatus { scope: self.scope, per_second: self.per_second, left, wait }
    }

    /// Forgets callers who have not called for so long that they have all their calls again.
    pub fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for RateLimit<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RateLimit({} {}/s)", self.scope.name(), self.per_second)
    }
}

/// How a caller stands after a call.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitStatus {
    scope: RateScope,
    per_second: NonZeroU32,
    left: u32,
    /// How long it has to wait, where the call was one too many.
    pub wait: Option<Duration>,
}

impl RateLimitStatus {
    /// The limit in words.
    #[must_use]
    pub fn limit(&self) -> String {
        let per_second = self.per_second;
        format!("{per_second} calls a second, {} at once", per_second.saturating_mul(BURST_SECONDS))
    }

    /// Tells the caller. A caller may have several limits, each with a member of its own.
    pub fn write(&self, headers: &mut HeaderMap) {
        let (name, per_second) = (self.scope.name(), self.per_second);
        // Seconds until there is more.
        let reset = self.wait.map_or(1, |wait| wait.as_secs() + 1);
        let limit = format!("\"{name}\";r={};t={reset}", self.left);
        let (quota, window) = (per_second.saturating_mul(BURST_SECONDS), BURST_SECONDS);
        let policy = format!("\"{name}\";q={quota};w={window}");
        for (header, value) in [(RATE_LIMIT, limit), (RATE_LIMIT_POLICY, policy)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(header, value);
            }
        }
    }
}
