//! A request as the handlers take it, and the order in which it is read and its caller authenticated.

use std::{pin::pin, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, header::EXPECT, request::Parts},
};
use tokio::task::yield_now;

use crate::gateway::{
    client::{Api, Caller, accepted},
    context::{RequestContext, RequestLimits},
    write::problem::Problem,
};

#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) api: Arc<Api>,
    pub(crate) limits: RequestLimits,
}

pub(crate) struct Incoming {
    pub(crate) caller: Caller,
    pub(crate) head: Parts,
    pub(crate) body: Body,
    pub(crate) limits: RequestLimits,
}

impl FromRequest<Gateway> for Incoming {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        // A handler would keep a body that it does not read until its answer is there.
        let body = if head.method.is_safe() { Body::empty() } else { body };
        let Gateway { api, limits } = gateway.clone();
        let context = head.extensions.get::<RequestContext>().ok_or_else(Problem::panicked)?;
        let caller = Caller::new(api, &head.headers, context);
        Ok(Self { caller, head, body, limits })
    }
}

/// Reads a request, and authenticates its caller before the body is read or refused.
/// The service authenticates every call; a call of its own is spent only where the body is not here yet, or
/// where the request is refused without a call, which then costs the caller's rate limit as usual.
/// A body with `Expect: 100-continue` is asked for by polling it, so nobody does before the caller is known.
pub(crate) async fn authenticated_first<T>(
    caller: &Caller,
    headers: &HeaderMap,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let mut reading = pin!(reading);
    let read = tokio::select! {
        biased;
        read = &mut reading, if !headers.contains_key(EXPECT) => read,
        // One turn of the connection's task, which hands over a body that has arrived.
        () = yield_now() => {
            // Boxed, as the rare case: every request would carry its size.
            Box::pin(caller.authenticate()).await?;
            reading.await
        }
    };
    if read.is_err() {
        // Counts the request, which makes no other call.
        accepted(Box::pin(caller.who_am_i()).await)?;
    }
    read
}
