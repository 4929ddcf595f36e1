//! Promise 14b: a user cannot tell a foreign organization from an unknown one, neither by
//! the bytes of an answer nor by its time.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use orgd::proto::v1::{
    CreateOrganizationRequest, GetOrganizationRequest, ListChangesRequest, Organization,
    UpdateOrganizationRequest, WatchRequest,
};
use prost_types::FieldMask;
use tokio::net::TcpStream;
use tonic::Status;

use crate::harness::{
    ADMINISTRATOR, Answer, FOREIGN, OWN, Service, UNCOUNTED, UNKNOWN, USER, authorized,
    on_both_databases_with,
};

/// Another organization that no database has.
const UNKNOWN_TOO: i64 = 78;

/// A method, what follows the organization's path, headers, and a body.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

const REST: [Case; 26] = [
    ("GET", "", &[], ""),
    ("GET", "?includeWritableFields=true", &[], ""),
    ("GET", "", &[("if-none-match", "\"1\"")], ""),
    ("HEAD", "", &[], ""),
    ("OPTIONS", "", &[], ""),
    ("DELETE", "", &[], ""),
    ("PUT", "", &[], "{}"),
    ("PUT", "", &[], r#"{"name": "N"}"#),
    ("PUT", "", &[], r#"{"name": ""}"#),
    ("PUT", "", &[], r#"{"name": null}"#),
    ("PUT", "", &[], r#"{"subscriptionId": "s", "handshake": "h"}"#),
    ("PUT", "", &[], "{"),
    ("PUT", "", &[], r#"{"id": 1}"#),
    ("PUT", "", &[("content-type", "text/plain")], "{}"),
    ("PUT", "", &[("if-match", "\"1\"")], r#"{"name": "N"}"#),
    ("PUT", "", &[("if-match", "*")], r#"{"name": "N"}"#),
    ("PUT", "", &[("if-none-match", "*")], r#"{"name": "N"}"#),
    ("PUT", "", &[("idempotency-key", KEY)], r#"{"name": "N"}"#),
    ("PUT", "", &[("prefer", "return=representation, handling=strict")], r#"{"x": 1}"#),
    ("PUT", "?validateOnly=true", &[], r#"{"name": "N"}"#),
    ("GET", "/changes", &[], ""),
    ("GET", "/changes?pageSize=1", &[], ""),
    ("GET", "/changes", &[("accept", "text/event-stream")], ""),
    ("GET", "/changes", &[("accept", "text/event-stream"), ("last-event-id", "0")], ""),
    ("GET", "/events", &[], ""),
    ("GET", "/events?lastEventId=0", &[], ""),
];
const KEY: &str = "7e0b6a52-13f5-4b8e-8f57-0f6a1d3c2b10";

#[tokio::test]
async fn answers_do_not_tell_a_foreign_organization_from_an_unknown_one() {
    on_both_databases_with(&[UNCOUNTED], async |service| {
        // The foreign one has a history.
        let change = r#"{"name": "Renamed", "handshake": "h"}"#;
        assert_eq!(service.put(FOREIGN, ADMINISTRATOR, change).send().await.status(), 200);
        for (method, path, headers, body) in REST {
            let ask = async |id: i64| {
                let whole = format!("/v1/organizations/{id}{path}");
                let mut request = service.request(method, &whole).body(body);
                request = request.bearer(USER);
                for (name, value) in headers.iter().chain(&[("x-request-id", "the-same")]) {
                    request = request.header(name, value);
                }
                let answer = whole_of(&request.send().await);
                answer.replace(&format!("/v1/organizations/{id}"), "/v1/organizations/ID")
            };
            let (foreign, unknown) = (ask(FOREIGN).await, ask(UNKNOWN).await);
            assert_eq!(foreign, unknown, "{method} {path} {headers:?} {body}");
        }
        let create = async |id: i64| {
            let request = service.request("POST", "/v1/organizations");
            let request = request.bearer(USER);
            let request = request.header("x-request-id", "the-same");
            whole_of(&request.body(format!(r#"{{"id": {id}, "name": "N"}}"#)).send().await)
        };
        assert_eq!(create(FOREIGN).await, create(UNKNOWN).await);

        let foreign = grpc_refusals(&service, FOREIGN).await;
        assert_eq!(foreign, grpc_refusals(&service, UNKNOWN).await);
    })
    .await;
}

/// A whole answer but for its date.
fn whole_of(answer: &Answer) -> String {
    let lines = answer.header_lines().into_iter().filter(|(name, _)| name != "date");
    let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{}\n{}\n\n{}", answer.status(), lines.join("\n"), answer.text())
}

/// Every method's refusal, whole.
async fn grpc_refusals(service: &Service, id: i64) -> Vec<(i32, String, Vec<u8>, String)> {
    let mut client = service.grpc();
    let organization = Organization { id, name: Some("N".to_owned()), ..Organization::default() };
    let update = UpdateOrganizationRequest {
        organization: Some(organization.clone()),
        ..UpdateOrganizationRequest::default()
    };
    let masked = |path: &str| {
        let paths = vec![path.to_owned()];
        UpdateOrganizationRequest { update_mask: Some(FieldMask { paths }), ..update.clone() }
    };
    let with_etag = Organization { etag: "\"1\"".to_owned(), ..organization.clone() };
    let updates = [
        update.clone(),
        masked("name"),
        masked("handshake"),
        masked("*"),
        masked("nope"),
        UpdateOrganizationRequest { organization: Some(with_etag), ..update.clone() },
        UpdateOrganizationRequest { validate_only: true, ..update.clone() },
        UpdateOrganizationRequest { request_id: KEY.to_owned(), ..update.clone() },
    ];
    let mut refusals = Vec::new();
    for update in updates {
        refusals.push(client.update(request(update)).await.unwrap_err());
    }
    let get = GetOrganizationRequest { id, include_writable_fields: true };
    refusals.push(client.get(request(get)).await.unwrap_err());
    let list = ListChangesRequest { organization_id: id, ..ListChangesRequest::default() };
    refusals.push(client.list_changes(request(list)).await.unwrap_err());
    for from_versions in [[].into(), [(id, 0)].into()] {
        let watch = WatchRequest { organization_ids: vec![OWN, id], from_versions };
        refusals.push(client.watch(request(watch)).await.unwrap_err());
    }
    let create = CreateOrganizationRequest {
        organization: Some(organization),
        ..CreateOrganizationRequest::default()
    };
    refusals.push(client.create(request(create)).await.unwrap_err());
    let whole = |status: Status| {
        let mut metadata = status.metadata().clone().into_headers();
        metadata.remove("date");
        let details = status.details().to_vec();
        (i32::from(status.code()), status.message().to_owned(), details, format!("{metadata:?}"))
    };
    refusals.into_iter().map(whole).collect()
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = authorized(USER, message);
    request.metadata_mut().insert("x-request-id", "the-same".parse().unwrap());
    request
}

/// How often labels are exchanged at random to learn what chance alone makes of the difference. What
/// is taken for noise is the largest of these: a round is wrong once in so many.
const EXCHANGES: usize = 500;
/// Rounds of which one must find no difference. A machine that does much else may make one; it
/// does not make all.
const ROUNDS: usize = 3;

/// Two medians, their difference, and what the difference is where there is none.
struct Comparison {
    medians: [Duration; 2],
    difference: Duration,
    noise: Duration,
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { medians: [first, second], difference, noise } = self;
        write!(
            formatter,
            "medians {first:?} and {second:?}, difference {difference:?}, noise {noise:?}"
        )
    }
}

impl Comparison {
    /// Measures pairs, the two of each in an order that chance decides.
    async fn of(pairs: usize, mut measure: impl AsyncFnMut(usize) -> Duration) -> Self {
        let mut measured = Vec::new();
        for is_second_first in coins(pairs) {
            let mut pair = [Duration::ZERO; 2];
            for turn in 0..2 {
                let which = if is_second_first { 1 - turn } else { turn };
                pair[which] = measure(which).await;
            }
            measured.push(pair);
        }
        let difference_of = |medians: [Duration; 2]| medians[0].abs_diff(medians[1]);
        let exchanged = (0..EXCHANGES).map(|_| {
            let pairs = measured.iter().zip(coins(measured.len()));
            let pairs =
                pairs.map(|([a, b], is_exchanged)| if is_exchanged { [*b, *a] } else { [*a, *b] });
            difference_of(medians(pairs))
        });
        let noise = exchanged.max().unwrap();
        let medians = medians(measured.iter().copied());
        Self { medians, difference: difference_of(medians), noise }
    }

    fn is_noise(&self) -> bool {
        self.difference <= self.noise
    }
}

fn medians(pairs: impl Iterator<Item = [Duration; 2]>) -> [Duration; 2] {
    let (mut first, mut second): (Vec<_>, Vec<_>) = pairs.map(|[a, b]| (a, b)).unzip();
    [&mut first, &mut second].map(|all| {
        let middle = all.len() / 2;
        *all.select_nth_unstable(middle).1
    })
}

fn coins(count: usize) -> impl Iterator<Item = bool> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).unwrap();
    bytes.into_iter().map(|byte| byte & 1 == 1)
}

/// One kept connection to the REST API.
struct Kept {
    addr: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Kept {
    /// Does `work` over a connection of its own.
    async fn with<T>(addr: SocketAddr, work: impl AsyncFnOnce(Self) -> T) -> T {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::select! {
            done = work(Self { addr, sender }) => done,
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }

    /// How long an answer takes, which must have this status.
    async fn time(&mut self, method: &str, id: i64, status: u16) -> Duration {
        let body = if method == "PUT" { r#"{"name": "N"}"# } else { "" };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/v1/organizations/{id}"))
            .header("host", self.addr.to_string())
            .header("authorization", format!("Bearer {USER}"))
            .body(Full::from(body))
            .unwrap();
        self.sender.ready().await.unwrap();
        let begin = Instant::now();
        let answer = self.sender.send_request(request).await.unwrap();
        let answered = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        let time = begin.elapsed();
        assert_eq!(answered, status);
        time
    }
}

async fn time_of_grpc(service: &Service, pairs: usize) {
    let client = service.grpc();
    compare("gRPC Get", pairs, [FOREIGN, UNKNOWN], async |id| {
        let mut client = client.clone();
        let request = authorized(USER, GetOrganizationRequest { id, ..Default::default() });
        let begin = Instant::now();
        client.get(request).await.unwrap_err();
        begin.elapsed()
    })
    .await;
}

/// Compares the answers for two organizations, which must take the same time.
async fn compare(
    name: &str,
    pairs: usize,
    ids: [i64; 2],
    mut time: impl AsyncFnMut(i64) -> Duration,
) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let round = Comparison::of(pairs, async |which| time(ids[which]).await).await;
        eprintln!("{name} of {ids:?}, {pairs} pairs: {round}");
        if round.is_noise() {
            return;
        }
        rounds.push(round.to_string());
    }
    panic!("{name} of {ids:?} takes different times: {rounds:?}");
}

/// Over both databases, with the calls that are named.
async fn compare_times(pairs: usize, methods: &[&str], with_grpc: bool) {
    on_both_databases_with(&[UNCOUNTED], async |service| {
        Kept::with(service.http_addr(), async |mut rest| {
            // What the measure finds where there is nothing to find, and where there is something: the
            // caller's own organization is looked up, and all others are refused without a look.
            compare("GET", pairs / 4, [UNKNOWN, UNKNOWN_TOO], async |id| {
                rest.time("GET", id, 403).await
            })
            .await;
            // The more noise there is, the more pairs it takes.
            let mut is_found = false;
            for round in 0..2 * ROUNDS {
                let known = Comparison::of((pairs / 4) << round, async |which| {
                    let (id, status) = [(OWN, 200), (UNKNOWN, 403)][which];
                    rest.time("GET", id, status).await
                });
                let known = known.await;
                eprintln!("GET of its own and of an unknown one: {known}");
                is_found = is_found || !known.is_noise();
                if is_found {
                    break;
                }
            }
            assert!(is_found, "a difference that is there is not found");

            for method in methods {
                compare(method, pairs, [FOREIGN, UNKNOWN], async |id| {
                    rest.time(method, id, 403).await
                })
                .await;
            }
        })
        .await;
        if with_grpc {
            time_of_grpc(&service, pairs).await;
        }
    })
    .await;
}

#[tokio::test]
async fn response_times_do_not_tell_a_foreign_organization_from_an_unknown_one() {
    compare_times(2_000, &["PUT"], false).await;
}

#[tokio::test]
#[ignore = "long: make soak"]
async fn response_times_of_no_request_tell_a_foreign_organization_from_an_unknown_one() {
    compare_times(10_000, &["PUT", "GET"], true).await;
}
