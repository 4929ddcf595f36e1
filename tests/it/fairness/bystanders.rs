//! The callers that an abuse must not disturb: an honest user of another organization, an administrator, and the
//! readiness probe. Each calls from an address of its own.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use orgd::proto::v1::{
    GetOrganizationRequest, Organization, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::stage::Stage;
use crate::harness::{
    ADMINISTRATOR, FOREIGN, OWN, Request, Service, authorized, disclosure::Searched, reason,
};

pub const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub const OTHERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PROBE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// Longer than a call's own deadline.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long each rests between two calls.
const REST: Duration = Duration::from_millis(10);
const ADMINISTRATORS_REST: Duration = Duration::from_millis(150);
const PROBES_REST: Duration = Duration::from_millis(100);

/// What is measured by itself.
type Kind = &'static str;

/// How calls ended: how long those of a kind took that were answered as they should be, and how often
/// what else came.
#[derive(Default)]
pub struct Calls {
    times: BTreeMap<Kind, Vec<Duration>>,
    pub failures: BTreeMap<String, u32>,
}

impl Calls {
    /// Waits for an answer: what it was, where it was not the one that is due.
    async fn time(&mut self, kind: Kind, call: impl Future<Output = Result<(), String>>) {
        let begin = Instant::now();
        let ended = timeout(PATIENCE, call).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        match ended {
            Ok(()) => self.times.entry(kind).or_default().push(begin.elapsed()),
            Err(what) => *self.failures.entry(format!("{kind}: {what}")).or_default() += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.failures.extend(other.failures);
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.times.keys().copied()
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.times.get(kind).map_or(0, Vec::len)
    }

    /// The time within which so many of a hundred were answered; none without an answer.
    pub fn within(&self, kind: Kind, hundredths: usize) -> Option<Duration> {
        let mut times = self.times.get(kind)?.clone();
        times.sort_unstable();
        times.get(times.len() * hundredths / 100).copied()
    }
}

/// What came instead of the answers that were due.
pub struct Failures<'a>(pub &'a BTreeMap<String, u32>);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.iter().map(|(what, count)| format!("{what} × {count}"));
        let counts: Vec<_> = counts.collect();
        formatter.write_str(if counts.is_empty() { "none" } else { "" })?;
        formatter.write_str(&counts.join(", "))
    }
}

/// Everyone, who have called for a while.
pub struct Bystanders<'a> {
    stage: &'a Stage,
    grpc: Option<OrganizationServiceClient<Searched<Channel>>>,
}

impl<'a> Bystanders<'a> {
    pub fn of(stage: &'a Stage) -> Self {
        let grpc = stage.gateway.is_none().then(|| grpc_from(HONEST, &stage.service));
        Self { stage, grpc }
    }

    /// How their calls ended for as long as something else went on, and what that came to.
    pub async fn beside<T>(&self, other: impl Future<Output = T>) -> (Calls, T) {
        let is_done = Cell::new(false);
        let other = async {
            let done = other.await;
            is_done.set(true);
            done
        };
        let goes_on = || !is_done.get();
        let (mut calls, administrators, probes, done) = tokio::join!(
            Box::pin(self.honest(&goes_on)),
            Box::pin(self.administrator(&goes_on)),
            Box::pin(self.probe(&goes_on)),
            other
        );
        calls.add(administrators);
        calls.add(probes);
        (calls, done)
    }

    /// Reads and changes its own organization, through each API in turn.
    async fn honest(&self, goes_on: &impl Fn() -> bool) -> Calls {
        let mut calls = Calls::default();
        for turn in 0.. {
            if !goes_on() {
                break;
            }
            let name = format!("Honest {turn}");
            let front = self.stage.front().http_addr();
            match (turn % 4, &self.grpc) {
                (0, _) | (2, None) => {
                    let body = format!(r#"{{"name": "{name}"}}"#);
                    let put = rest(front, "PUT", &own(), &self.stage.honest, HONEST).body(body);
                    calls.time("REST PUT", answered(put)).await;
                }
                (1, _) | (3, None) => {
                    let get = rest(front, "GET", &own(), &self.stage.honest, HONEST);
                    calls.time("REST GET", answered(get)).await;
                }
                (2, Some(client)) => {
                    let call = update(client.clone(), &self.stage.honest, name);
                    calls.time("gRPC Update", call).await;
                }
                (_, Some(client)) => {
                    calls.time("gRPC Get", get(client.clone(), &self.stage.honest)).await;
                }
                _ => unreachable!("of four"),
            }
            sleep(REST).await;
        }
        calls
    }

    /// Lists, creates, and changes the very organization that is abused.
    async fn administrator(&self, goes_on: &impl Fn() -> bool) -> Calls {
        let mut calls = Calls::default();
        for turn in 0.. {
            if !goes_on() {
                break;
            }
            let (kind, method, path, body) = match turn % 3 {
                0 => ("list", "GET", "/v1/organizations?pageSize=50".to_owned(), String::new()),
                1 => {
                    let body = r#"{"name": "Created"}"#.to_owned();
                    ("creation", "POST", "/v1/organizations".to_owned(), body)
                }
                _ => {
                    let body = format!(r#"{{"subscriptionId": "s{turn}"}}"#);
                    ("same organization", "PUT", format!("/v1/organizations/{OWN}"), body)
                }
            };
            let front = self.stage.front().http_addr();
            let request = rest(front, method, &path, ADMINISTRATOR, OTHERS).body(body);
            calls.time(kind, answered(request)).await;
            sleep(ADMINISTRATORS_REST).await;
        }
        calls
    }

    /// Asks each process whether it is ready.
    async fn probe(&self, goes_on: &impl Fn() -> bool) -> Calls {
        let mut calls = Calls::default();
        while goes_on() {
            for (_, process) in self.stage.processes() {
                let request = Request::new(process.ops_addr(), "GET", "/readyz");
                calls.time("readyz", answered(request.calling_from(PROBE))).await;
            }
            sleep(PROBES_REST).await;
        }
        calls
    }
}

fn own() -> String {
    format!("/v1/organizations/{FOREIGN}")
}

fn rest(to: SocketAddr, method: &str, path: &str, token: &str, from: Ipv4Addr) -> Request {
    Request::new(to, method, path)
        .calling_from(from)
        .bearer(token)
        .header("content-type", "application/json")
}

async fn answered(request: Request) -> Result<(), String> {
    let Ok(answer) = request.try_send().await else { return Err("broken".to_owned()) };
    match answer.status() {
        200 | 201 => Ok(()),
        status => Err(format!("{status} {}", answer.reason())),
    }
}

/// A client of the gRPC listener that comes from an address.
pub fn grpc_from(
    from: Ipv4Addr,
    service: &Service,
) -> OrganizationServiceClient<Searched<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc_addr())).unwrap();
    let channel = endpoint.local_address(Some(from.into())).connect_lazy();
    OrganizationServiceClient::new(Searched(channel))
}

async fn update(
    mut client: OrganizationServiceClient<Searched<Channel>>,
    token: &str,
    name: String,
) -> Result<(), String> {
    let organization = Organization { id: FOREIGN, name: Some(name), ..Organization::default() };
    let message = UpdateOrganizationRequest {
        organization: Some(organization),
        ..UpdateOrganizationRequest::default()
    };
    let answer = client.update(authorized(token, message)).await;
    answer.map(drop).map_err(|status| format!("{:?} {}", status.code(), reason(&status)))
}

async fn get(
    mut client: OrganizationServiceClient<Searched<Channel>>,
    token: &str,
) -> Result<(), String> {
    let message = GetOrganizationRequest { id: FOREIGN, ..GetOrganizationRequest::default() };
    let answer = client.get(authorized(token, message)).await;
    answer.map(drop).map_err(|status| format!("{:?} {}", status.code(), reason(&status)))
}
