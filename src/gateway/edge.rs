//! What every request and answer passes through: the request id, the deadline, the wording of a
//! refusal, and the documented headers. The outermost layer, so that no answer comes past it.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Version, header::HOST},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout_at};

use super::{RequestLimits, headers, problem::Problem};
use crate::proto::{request_id, timeout};

/// What is known of a request before it is routed.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) request_id: HeaderValue,
    pub(super) deadline: Instant,
}

pub(super) async fn edge(
    State(limits): State<RequestLimits>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = request_id::of(request.headers());
    // Without the query: it may hold what a client should not have put there.
    let path = request.uri().path().to_owned();
    let answer = match timeout::of(request.headers()) {
        _ if lacks_host(&request) => Problem::missing_host().into_response(),
        Err(timeout::Malformed) => Problem::malformed_timeout().into_response(),
        Ok(asked) => {
            let time = asked.map_or(limits.deadline, |asked| asked.min(limits.deadline));
            let deadline = Instant::now() + time;
            request.extensions_mut().insert(Exchange { request_id: request_id.clone(), deadline });
            timeout_at(deadline, next.run(request))
                .await
                .unwrap_or_else(|_| Problem::deadline_exceeded().into_response())
        }
    };
    let mut answer = Problem::render(answer, &path, &request_id);
    headers::document(answer.headers_mut());
    answer.headers_mut().insert(request_id::HEADER, request_id);
    answer
}

/// RFC 9112 §3.2: a request of HTTP/1.1 without a Host, or with several, is answered 400.
fn lacks_host(request: &Request) -> bool {
    request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
}
