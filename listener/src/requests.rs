//! What becomes of a request: it is counted, answered, and counted until its answer is out.

use std::{convert::Infallible, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Request, Response, Version,
    header::{CONNECTION, EXPECT},
};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    answer::GuardedBody,
    arriving::ArrivingBody,
    budget::REQUEST_BYTES,
    charge::Origin,
    connection_state::ConnectionState,
    context::{ListenerContext, Peer},
    forwarded::{Source, source},
};

/// What the requests of a connection have in common.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) context: Arc<ListenerContext>,
    pub(crate) peer: Peer,
    pub(crate) state: ConnectionState,
    /// Cancelled when answers must announce that they are the connection's last.
    pub(crate) is_last: CancellationToken,
    /// Cancelled when the connection takes no new requests. Streams without an end of their own must end
    /// then.
    pub(crate) is_ending: CancellationToken,
}

impl Requests {
    /// The request is charged before this returns, not when the future is polled: one poll of a connection
    /// may bring as many requests as there may be.
    pub(crate) fn answer(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<GuardedBody<axum::body::Body>>, Infallible>> {
        let is_http1 = request.version() < Version::HTTP_2;
        let is_asked_for = request.headers().contains_key(EXPECT);
        let source = self.source(request.headers());
        let Self { context, peer, state, is_last, is_ending } = self;
        let guard = state.start_request(is_http1, &context.limits);
        let mut caller_budget = context.budget.of_caller(source, request.headers());
        let connection = state.budget().clone();
        let origin = Origin {
            budget: context.budget.clone(),
            source,
            connection: connection.clone(),
            is_proxied: peer.is_proxy,
        };
        let (charge, is_within) = origin.charge(REQUEST_BYTES);
        if !is_within {
            caller_budget.refuse();
        }
        let patience = context.limits.request_deadline;
        let mut request =
            request.map(|body| ArrivingBody::new(body, is_http1, &state, (origin, patience)));
        // For its rate limit.
        request.extensions_mut().insert(source);
        request.extensions_mut().insert(caller_budget.clone());
        // For answers that have no end of their own.
        request.extensions_mut().insert(is_ending);
        async move {
            if is_http1 && !is_asked_for {
                request.body_mut().look();
            }
            // Boxed, so that a long answer does not keep the memory of the future that made it.
            let mut response = Box::pin(context.router.clone().oneshot(request)).await?;
            // hyper closes a connection whose next request it cannot read, and does not announce it. So we
            // do.
            if is_http1 && (is_last.is_cancelled() || state.is_body_arriving()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(GuardedBody::guard(response, connection, guard, (caller_budget, charge)))
        }
    }

    fn source(&self, headers: &HeaderMap) -> Source {
        if self.peer.is_proxy {
            source(self.peer.address, headers, &self.context.proxies)
        } else {
            Source::of(self.peer.address)
        }
    }
}
