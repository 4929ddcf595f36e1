//! A caller's share of a gateway's connections to its service: of the calls under way, and of the streams. In
//! `orgd serve`, where both are one process, the service's own shares are enough.
//!
//! A gateway knows no principals, so it shares by credential, once the service has accepted it. Until then a
//! call comes out of the share of its network: a client that invents tokens has one share for all of them.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, Request, Response, Uri, request::Parts};
use http_body_util::BodyExt;
use moka::future::Cache;
use orgd_listener::{Source, X_FORWARDED_FOR, secret};
use orgd_shares::{Over, Share, Shares};
use tonic::{Code, Status, body::Body, metadata::MetadataMap};
use tower::ServiceExt;

use crate::{
    domain::SHORT_ID_LETTERS,
    gateway::{client::accepted, remote::Transport, write::problem},
    proto::{
        COUNTED, timeout as grpc_timeout,
        v1::{self, organization_service_client::OrganizationServiceClient},
    },
    telemetry::{RequestRecord, metrics::OpenWatch},
};

/// The call that is answered by a stream.
const WATCH: &str = "/organization.v1.OrganizationService/Watch";
/// One caller may have half of the calls that others leave, and a tenth of the streams, which stay for long.
const CALL_PARTS: usize = 2;
const STREAM_PARTS: usize = 10;
/// Credentials that are remembered, and for how long after they were used last.
const KNOWN_MAX: u64 = 100_000;
const KNOWN_IDLE_TIME: Duration = Duration::from_secs(600);

/// The keyed hash of a credential's secret, which is in memory nowhere else.
type Digest = u64;

/// Whose share a call comes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Credential(Digest),
    Source(Option<IpAddr>),
}

/// The shares of all callers.
struct Callers {
    calls: Shares<Holder>,
    streams: Shares<Holder>,
    /// Credentials that the service has taken, and whose they are, where it says that.
    known: Cache<Digest, Option<Arc<v1::Caller>>>,
    key: RandomState,
}

/// The transport with limits for calls and streams at once, of which each caller has a share.
#[must_use]
pub fn in_shares(transport: Transport, calls_max: usize, streams_max: usize) -> Transport {
    let callers = Arc::new(Callers {
        calls: Shares::new(calls_max, CALL_PARTS),
        streams: Shares::new(streams_max, STREAM_PARTS),
        known: Cache::builder().max_capacity(KNOWN_MAX).time_to_idle(KNOWN_IDLE_TIME).build(),
        key: RandomState::new(),
    });
    Transport::new(move |request| {
        let (callers, transport) = (callers.clone(), transport.clone());
        async move { callers.call(transport, request).await }
    })
}

/// Whether a call is answered by a stream, which goes on for as long as its client likes.
pub fn is_stream(uri: &Uri) -> bool {
    uri.path() == WATCH
}

/// The holder of a call whose caller is not known yet: its network.
fn network(head: &Parts) -> Holder {
    Holder::Source(head.extensions.get().map(|Source(source)| *source))
}

/// The response. `kept` is dropped together with its body: at its end, or when its client leaves.
pub fn keeping<T: Send + 'static>(response: Response<Body>, kept: T) -> Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _kept = &kept;
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
        let (mut head, body) = request.into_parts();
        // The client's address, for a service that trusts this gateway as a proxy.
        let source = head.extensions.get().map(|Source(source)| source.to_string());
        if let Some(Ok(source)) = source.map(HeaderValue::try_from) {
            head.headers.insert(X_FORWARDED_FOR, source);
        }
        let digest = self.digest(&head.headers);
        let holder = match digest {
            Some(digest) => {
                let caller = self.caller(digest, &transport, &head).await?;
                if let (Some(caller), Some(record)) =
                    (caller, head.extensions.get::<RequestRecord>())
                {
                    let short_id = caller.credential_id.get(..SHORT_ID_LETTERS);
                    record.set_caller(caller.subject.as_str().into(), short_id.map(str::to_owned));
                }
                Holder::Credential(digest)
            }
            None => network(&head),
        };
        let place = if is_stream(&head.uri) {
            (self.stream_place(&holder, &head).await?, Some(OpenWatch::start()))
        } else {
            (self.call_place(&holder, &head).await?, None)
        };
        let response = transport.oneshot(Request::from_parts(head, body)).await?;
        let refusal = Status::from_header_map(response.headers());
        let is_unknown = refusal.is_some_and(|refusal| refusal.code() == Code::Unauthenticated);
        if let (Some(digest), true) = (digest, is_unknown) {
            self.known.invalidate(&digest).await;
        }
        Ok(keeping(response, place))
    }

    /// Whose a credential is, once the service has taken it.
    async fn caller(
        &self,
        digest: Digest,
        transport: &Transport,
        head: &Parts,
    ) -> Result<Option<Arc<v1::Caller>>, Status> {
        if let Some(caller) = self.known.get(&digest).await {
            return Ok(caller);
        }
        // Boxed: else the future of every call would have the size of this rare case.
        let caller = Box::pin(self.introduce(transport.clone(), head)).await?;
        self.known.insert(digest, caller.clone()).await;
        Ok(caller)
    }

    /// Asks the service whether it accepts a credential. This is a short call of its own: the caller's call
    /// may be long, and would count against its network's share all the time.
    async fn introduce(
        &self,
        transport: Transport,
        head: &Parts,
    ) -> Result<Option<Arc<v1::Caller>>, Status> {
        let _place = self.call_place(&network(head), head).await?;
        let mut request = tonic::Request::new(v1::WhoAmIRequest {});
        *request.metadata_mut() = MetadataMap::from_headers(head.headers.clone());
        // Costs no token. The caller's own call, which may be a `WhoAmI` as well, is counted.
        request.metadata_mut().remove(COUNTED);
        let answer = OrganizationServiceClient::new(transport).who_am_i(request).await;
        Ok(accepted(answer.map(tonic::Response::into_inner))?.map(Arc::new))
    }

    fn digest(&self, headers: &HeaderMap) -> Option<Digest> {
        Some(self.key.hash_one(secret(headers)?))
    }

    /// A place for a call, once it is its caller's turn.
    async fn call_place(&self, holder: &Holder, head: &Parts) -> Result<Share<Holder>, Status> {
        place(&self.calls, holder, head).await.map_err(|over| match over {
            Over::Share => problem::share_exhausted(),
            Over::Whole => problem::overloaded(),
        })
    }

    async fn stream_place(&self, holder: &Holder, head: &Parts) -> Result<Share<Holder>, Status> {
        let place = place(&self.streams, holder, head).await;
        place.map_err(|_| problem::watches_exhausted())
    }
}

async fn place(
    shares: &Shares<Holder>,
    holder: &Holder,
    head: &Parts,
) -> Result<Share<Holder>, Over> {
    // Half of the deadline, so that there is time left to answer with a refusal.
    let left = grpc_timeout::of(&head.headers).ok().flatten();
    shares.wait_at_most(left.map_or(Duration::MAX, |left| left / 2), holder).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::http::{Request, Response, header::AUTHORIZATION};
    use bytes::Bytes;
    use futures_util::{FutureExt, stream};
    use orgd_listener::Source;
    use tonic::{Status, body::Body};
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

    use super::{Transport, WATCH, in_shares};
    use crate::gateway::transport;

    /// A service that takes the credentials that begin with `good`, answers calls with a body that has no
    /// end, and does not answer at all who calls slowly.
    fn in_front_of_a_service(calls_max: usize, streams_max: usize) -> Transport {
        let service = service_fn(async |request: Request<Body>| {
            let line = request.headers()[AUTHORIZATION].to_str().unwrap_or_default();
            if line.contains("slow") {
                pending::<()>().await;
            }
            let is_taken = line.contains(" good");
            let answer = match request.uri().path() {
                _ if !is_taken => Status::unauthenticated("").into_http(),
                WHO_AM_I => Status::unimplemented("").into_http(),
                _ => {
                    let body = stream::pending::<Result<Bytes, Status>>();
                    Response::new(Body::new(axum::body::Body::from_stream(body)))
                }
            };
            Ok::<_, Status>(answer)
        });
        in_shares(transport(service), calls_max, streams_max)
    }

    async fn call(
        transport: &Transport,
        path: &str,
        line: &str,
        network: u8,
    ) -> Result<Response<Body>, String> {
        let request = Request::builder()
            .uri(path)
            .header(AUTHORIZATION, line)
            // So much of it is waited for a turn.
            .header("grpc-timeout", "20m")
            .extension(Source([127, 0, 0, network].into()))
            .body(Body::empty());
        let answer = transport.clone().oneshot(request.unwrap()).await;
        answer.map_err(|status| match status.get_details_error_info() {
            Some(info) => info.reason,
            None => format!("{:?}", status.code()),
        })
    }

    const SHARE: &str = "SHARE_EXHAUSTED";
    const GET: &str = "/organization.v1.OrganizationService/Get";
    const WHO_AM_I: &str = "/organization.v1.OrganizationService/WhoAmI";

    #[tokio::test]
    async fn a_caller_has_one_share_however_it_spells_its_credential_and_wherever_it_calls_from() {
        let transport = in_front_of_a_service(8, 8);
        let mut held = Vec::new();
        for line in ["Bearer good-1", "bearer good-1", "BEARER  good-1", "ApiKey good-1"] {
            held.push(call(&transport, GET, line, 1).await);
        }
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        assert_eq!(call(&transport, GET, "Bearer good-1", 2).await.unwrap_err(), SHARE);
        assert!(call(&transport, GET, "Bearer good-2", 1).await.is_ok());
        held.pop();
        assert!(call(&transport, GET, "Bearer good-1", 1).await.is_ok());
    }

    #[tokio::test]
    async fn tokens_that_are_not_known_share_what_their_network_has() {
        let transport = in_front_of_a_service(8, 8);
        assert!(call(&transport, GET, "Bearer good-1", 1).await.is_ok());
        assert_eq!(call(&transport, GET, "Bearer x", 1).await.unwrap_err(), "Unauthenticated");
        let mut asking = Vec::new();
        for number in 0..4 {
            let transport = &transport;
            let line = format!("Bearer slow-{number}");
            asking.push(Box::pin(async move { call(transport, GET, &line, 1).await }));
        }
        for one in &mut asking {
            assert!(one.now_or_never().is_none());
        }
        for token in ["slow-5", "good-2", "x"] {
            let refused = call(&transport, GET, &format!("Bearer {token}"), 1).await;
            assert_eq!(refused.unwrap_err(), SHARE, "{token}");
        }
        assert!(call(&transport, GET, "Bearer good-1", 1).await.is_ok(), "is known");
        assert!(call(&transport, GET, "Bearer good-2", 2).await.is_ok(), "of another network");
        // Who leaves gives back its place.
        drop(asking);
        assert!(call(&transport, GET, "Bearer good-3", 1).await.is_ok());
    }

    #[tokio::test]
    async fn a_whole_that_others_have_is_not_ones_own_doing_and_streams_have_a_share_of_their_own()
    {
        let transport = in_front_of_a_service(1, 20);
        for token in ["good-1", "good-2"] {
            drop(call(&transport, GET, &format!("Bearer {token}"), 1).await);
        }
        let _held = call(&transport, GET, "Bearer good-1", 1).await;
        let refused = call(&transport, GET, "Bearer good-2", 2).await;
        assert_eq!(refused.unwrap_err(), "STORE_OVERLOADED");
        let streams = [
            call(&transport, WATCH, "Bearer good-1", 1).await,
            call(&transport, WATCH, "Bearer good-1", 1).await,
        ];
        assert!(streams.iter().all(Result::is_ok), "{streams:?}");
        let refused = call(&transport, WATCH, "Bearer good-1", 1).await;
        assert_eq!(refused.unwrap_err(), "WATCHES_EXHAUSTED");
    }
}
