//! A caller's share of a gateway's way to its service: of the calls that are under way, and of the
//! streams. In front of the service itself, in one process, the service's own shares are enough.
//!
//! A gateway knows no principals. Who calls is the credential, once the service has taken it, and until
//! then the network that it comes from: whoever makes up tokens has one share for all of them.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderMap, Request, Response, Uri, header::AUTHORIZATION, request::Parts};
use http_body_util::BodyExt;
use moka::future::Cache;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};

use super::{client::Transport, problem};
use crate::{
    proto::timeout as grpc_timeout,
    shares::{Over, Share, Shares},
};

/// The call that is answered by a stream.
const WATCH: &str = "/organization.v1.OrganizationService/Watch";
/// One caller may have half of the calls that others leave, and a tenth of the streams: these stay.
const CALL_PARTS: usize = 2;
const STREAM_PARTS: usize = 10;
/// How long a call that is over its caller's share waits for its turn. The refusal comes no sooner, so
/// that a client which comes back at once keeps nobody busy.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Credentials that are remembered, and for how long after they were used last. One that is forgotten
/// counts for its network for one call.
const TAKEN_MAX: u64 = 100_000;
const TAKEN_IDLE_TIME: Duration = Duration::from_secs(600);

/// The network that a request comes from, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(pub(super) Option<IpAddr>);

/// The keyed hash of a credential's secret, which is in memory nowhere else.
type Digest = u64;

/// Whose share a call comes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Credential(Digest),
    Source(Source),
}

/// What callers have of the way to the service.
struct Callers {
    calls: Shares<Holder>,
    streams: Shares<Holder>,
    /// Credentials that the service has taken.
    taken: Cache<Digest, ()>,
    key: RandomState,
}

/// The transport, on which each caller has a share of so many calls and streams at once.
#[must_use]
pub fn in_shares(transport: Transport, calls_max: usize, streams_max: usize) -> Transport {
    let callers = Arc::new(Callers {
        calls: Shares::new(calls_max, CALL_PARTS),
        streams: Shares::new(streams_max, STREAM_PARTS),
        taken: Cache::builder().max_capacity(TAKEN_MAX).time_to_idle(TAKEN_IDLE_TIME).build(),
        key: RandomState::new(),
    });
    BoxCloneSyncService::new(service_fn(move |request| {
        let (callers, transport) = (callers.clone(), transport.clone());
        async move { callers.call(transport, request).await }
    }))
}

/// Whether a call is answered by a stream, which goes on for as long as its client likes.
pub fn is_stream(uri: &Uri) -> bool {
    uri.path() == WATCH
}

/// The response, with something that is held until its body is dropped: at its end, or when its client
/// leaves.
pub fn holding<T: Send + 'static>(response: Response<Body>, held: T) -> Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &held;
            frame
        }))
    })
}

impl Callers {
    async fn call(
        &self,
        transport: Transport,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let digest = self.digest(&head.headers);
        let taken = match digest {
            Some(digest) => self.taken.get(&digest).await.and(Some(digest)),
            None => None,
        };
        let source = head.extensions.get().copied().unwrap_or(Source(None));
        let holder = taken.map_or(Holder::Source(source), Holder::Credential);
        let share = self.share(&holder, &head).await?;
        let response = transport.oneshot(Request::from_parts(head, body)).await?;
        match (digest, Status::from_header_map(response.headers())) {
            // The service authenticates first; a refusal may have come before that.
            (Some(digest), None) if taken.is_none() => self.taken.insert(digest, ()).await,
            (Some(digest), Some(refusal)) if refusal.code() == Code::Unauthenticated => {
                self.taken.invalidate(&digest).await;
            }
            _ => {}
        }
        Ok(holding(response, share))
    }

    /// The digest of the secret that a request presents. All spellings of the header end with it, and
    /// all are one caller's.
    fn digest(&self, headers: &HeaderMap) -> Option<Digest> {
        let line = headers.get_all(AUTHORIZATION).iter().next()?.as_bytes();
        let secret = line.rsplit(|byte| *byte == b' ').next()?;
        Some(self.key.hash_one(secret))
    }

    /// What a call needs, once it is its caller's turn.
    async fn share(&self, holder: &Holder, head: &Parts) -> Result<Share<Holder>, Status> {
        let is_stream = is_stream(&head.uri);
        let shares = if is_stream { &self.streams } else { &self.calls };
        // Whoever cannot be served is to be told in time.
        let left = grpc_timeout::of(&head.headers).ok().flatten().unwrap_or(WAIT_MAX * 2);
        if let Ok(share) = timeout(WAIT_MAX.min(left / 2), shares.wait(holder)).await {
            return Ok(share);
        }
        shares.take(holder, 1).map_err(|over| match over {
            _ if is_stream => problem::watches_exhausted(),
            Over::Share => problem::share_exhausted(),
            Over::Whole => problem::overloaded(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use axum::http::{Request, Response, header::AUTHORIZATION};
    use futures_util::FutureExt;
    use tonic::{Status, body::Body};
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

    use super::{Source, Transport, WATCH, in_shares};
    use crate::gateway::transport;

    /// A service that takes the credentials that begin with `good`, and answers with a body
    /// that has no end.
    fn in_front_of_a_service(calls_max: usize, streams_max: usize) -> Transport {
        let service = service_fn(async |request: Request<Body>| {
            let line = request.headers()[AUTHORIZATION].to_str().unwrap_or_default();
            if !line.contains(" good") {
                return Ok(Status::unauthenticated("").into_http());
            }
            let body = futures_util::stream::pending::<Result<bytes::Bytes, Status>>();
            Ok::<_, Status>(Response::new(Body::new(axum::body::Body::from_stream(body))))
        });
        in_shares(transport(service), calls_max, streams_max)
    }

    async fn call(
        transport: &Transport,
        path: &str,
        line: &str,
        network: u8,
    ) -> Result<Response<Body>, String> {
        let source = Source(Some([127, 0, 0, network].into()));
        let request = Request::builder()
            .uri(path)
            .header(AUTHORIZATION, line)
            // So much of it is waited for a turn.
            .header("grpc-timeout", "20m")
            .extension(source)
            .body(Body::empty());
        let Ok(request) = request else { return Err("no request".to_owned()) };
        let answer = transport.clone().oneshot(request).await;
        answer.map_err(|status| {
            status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
        })
    }

    const SHARE: &str = "SHARE_EXHAUSTED";
    const GET: &str = "/organization.v1.OrganizationService/Get";

    #[tokio::test]
    async fn a_caller_that_is_known_has_a_share_of_its_own_however_it_spells_its_credential() {
        let transport = in_front_of_a_service(8, 8);
        for line in ["Bearer good-1", "Bearer good-2"] {
            drop(call(&transport, GET, line, 1).await);
        }
        let mut held = Vec::new();
        for line in ["Bearer good-1", "bearer good-1", "BEARER  good-1", "ApiKey good-1"] {
            held.push(call(&transport, GET, line, 1).await.map_err(|reason| reason + line));
        }
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        // From wherever it calls.
        assert_eq!(call(&transport, GET, "Bearer good-1", 2).await.err().as_deref(), Some(SHARE));
        assert!(call(&transport, GET, "Bearer good-2", 1).await.is_ok());
        held.pop();
        assert!(call(&transport, GET, "Bearer good-1", 1).await.is_ok());
    }

    #[tokio::test]
    async fn tokens_that_are_not_known_share_what_their_network_has() {
        let transport = in_front_of_a_service(8, 8);
        let mut held = Vec::new();
        for number in 0..4 {
            held.push(call(&transport, GET, &format!("Bearer good-{number}"), 1).await);
        }
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        assert_eq!(call(&transport, GET, "Bearer x", 1).await.err().as_deref(), Some(SHARE));
        assert_eq!(call(&transport, GET, "Bearer good-4", 1).await.err().as_deref(), Some(SHARE));
        assert!(call(&transport, GET, "Bearer good-4", 2).await.is_ok());
        // Which is known from then on.
        assert!(call(&transport, GET, "Bearer good-4", 1).await.is_ok());
    }

    #[tokio::test]
    async fn a_whole_that_others_have_is_not_ones_own_doing_and_streams_have_a_share_of_their_own()
    {
        let transport = in_front_of_a_service(1, 20);
        drop(call(&transport, GET, "Bearer good-1", 1).await);
        let _held = call(&transport, GET, "Bearer good-1", 1).await;
        let refused = call(&transport, GET, "Bearer good-2", 2).await;
        assert_eq!(refused.err().as_deref(), Some("STORE_OVERLOADED"));
        let streams = [
            call(&transport, WATCH, "Bearer good-1", 1).await,
            call(&transport, WATCH, "Bearer good-1", 1).await,
        ];
        assert!(streams.iter().all(Result::is_ok), "{streams:?}");
        let refused = call(&transport, WATCH, "Bearer good-1", 1).await;
        assert_eq!(refused.err().as_deref(), Some("WATCHES_EXHAUSTED"));
    }

    #[tokio::test]
    async fn whoever_leaves_gives_back_its_place() {
        let service = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Status>>());
        let transport = in_shares(transport(service), 2, 2);
        let mut first = Box::pin(call(&transport, GET, "Bearer x", 1));
        assert!((&mut first).now_or_never().is_none());
        assert_eq!(call(&transport, GET, "Bearer x", 1).await.err().as_deref(), Some(SHARE));
        drop(first);
        let next = call(&transport, GET, "Bearer x", 1);
        assert!(tokio::time::timeout(Duration::from_millis(100), next).await.is_err(), "under way");
    }
}
