//! A client that attacks with bytes, how its connection ends, what the service's memory makes of it,
//! and an honest client beside it.

use std::{cell::Cell, fs, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use orgd::proto::v1::{
    Organization, UpdateOrganizationRequest, organization_service_client::OrganizationServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use super::{ADMINISTRATOR, OWN, Service, authorized, disclosure::Searched, frame, kind};

/// The next bytes that an attacker sends, by how often it has.
pub type Next = Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// What an attacker sends, and what it takes.
#[derive(Clone)]
pub struct Offender {
    pub addr: SocketAddr,
    pub first: Vec<u8>,
    /// What comes after that.
    pub next: Option<Next>,
    /// How long it waits before them; as fast as it can where zero.
    pub pause: Duration,
    /// Whether it takes what comes, and answers pings of HTTP/2.
    pub reads: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// When the first GOAWAY came, or the end; none if neither.
    pub after: Option<Duration>,
    /// The error code of the GOAWAY.
    pub goaway: Option<u32>,
    pub resets: u32,
    pub sent: u32,
}

impl Offender {
    /// Attacks until the end, or until the client has no more patience.
    pub async fn attack(&self, patience: Duration) -> Ending {
        let mut ending = Ending { after: None, goaway: None, resets: 0, sent: 0 };
        let begin = Instant::now();
        if timeout(patience, self.exchange(&mut ending, begin)).await.is_ok() {
            ending.after = ending.after.or(Some(begin.elapsed()));
        }
        ending
    }

    async fn exchange(&self, ending: &mut Ending, begin: Instant) {
        // A connection that is not taken at once is not refused.
        let Ok(stream) = TcpStream::connect(self.addr).await else { return };
        let (mut read, mut write) = stream.into_split();
        let (mut inbox, mut outbox) = (Vec::new(), self.first.clone());
        let mut pause = pin!(sleep(self.pause));
        loop {
            let is_due = self.pause.is_zero() && outbox.is_empty();
            if let Some(next) = &self.next
                && is_due
            {
                for _ in 0..32 {
                    outbox.extend(next(ending.sent));
                    ending.sent += 1;
                }
            }
            tokio::select! {
                read = read.read_buf(&mut inbox), if self.reads => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                    take_frames(&mut inbox, &mut outbox, ending, begin);
                }
                written = write.write(&outbox), if !outbox.is_empty() => {
                    if let Ok(count) = written {
                        outbox.drain(..count);
                    } else {
                        // What the server said before it closed.
                        while matches!(read.read_buf(&mut inbox).await, Ok(1..)) {}
                        take_frames(&mut inbox, &mut outbox, ending, begin);
                        return;
                    }
                }
                () = &mut pause, if self.next.is_some() && !self.pause.is_zero() => {
                    outbox.extend(self.next.iter().flat_map(|next| next(ending.sent)).collect::<Vec<_>>());
                    ending.sent += 1;
                    pause.as_mut().reset(Instant::now() + self.pause);
                }
                () = sleep(Duration::from_millis(200)), if !self.reads => {
                    let ready = read.ready(Interest::READABLE).now_or_never();
                    if matches!(ready, Some(Ok(ready)) if ready.is_read_closed()) {
                        return;
                    }
                }
            }
        }
    }
}

/// Attacks by many connections at once, on threads of their own.
pub async fn attack(
    offenders: impl IntoIterator<Item = Offender>,
    patience: Duration,
) -> Vec<Ending> {
    let mut attacks = JoinSet::new();
    for offender in offenders {
        attacks.spawn(async move { offender.attack(patience).await });
    }
    attacks.join_all().await
}

/// The same, until no more than `few` connections are left; after how long that was.
pub async fn attack_until_few(
    offenders: impl IntoIterator<Item = Offender>,
    few: usize,
    patience: Duration,
) -> Option<Duration> {
    let begin = Instant::now();
    let mut attacks = JoinSet::new();
    for offender in offenders {
        attacks.spawn(async move { offender.attack(patience).await });
    }
    while attacks.len() > few {
        // One that was still open when patience ended.
        attacks.join_next().await?.unwrap().after?;
    }
    Some(begin.elapsed())
}

/// Takes whole frames of HTTP/2 from what came; answers of HTTP/1 look like frames that never end.
fn take_frames(inbox: &mut Vec<u8>, outbox: &mut Vec<u8>, ending: &mut Ending, begin: Instant) {
    while let Some(head) = inbox.first_chunk::<9>().copied() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if inbox.len() < 9 + length {
            break;
        }
        let payload: Vec<_> = inbox.drain(..9 + length).skip(9).collect();
        match (head[3], head[4]) {
            (kind::PING, 0) => outbox.extend(frame(kind::PING, 1, 0, &payload)),
            (kind::RST_STREAM, _) => ending.resets += 1,
            (kind::GOAWAY, _) => {
                ending.after.get_or_insert(begin.elapsed());
                let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                // The last word counts: a graceful end begins with NO_ERROR.
                ending.goaway = Some(code);
            }
            _ => {}
        }
    }
}

/// Resident memory of the service in KiB: now, or at its highest.
pub fn memory(service: &Service, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
}

/// By how many MB the memory of a service has grown at its highest.
pub struct Growth {
    start: u64,
}

impl Growth {
    /// After enough honest requests that the process has what it always has.
    pub async fn start(service: &Service) -> Self {
        let mut probe = Probe::new(service);
        for _ in 0..100 {
            probe.once().await;
        }
        Self { start: memory(service, "VmHWM") }
    }

    pub fn megabytes(&self, service: &Service) -> f64 {
        // The kernel counts by processor, and reads a little less now and then.
        let kib = memory(service, "VmHWM").saturating_sub(self.start);
        let kib = u32::try_from(kib).unwrap();
        f64::from(kib) / 1024.0
    }
}

/// An honest client: a PUT on a new connection and an Update on a kept one, one after the other.
pub struct Probe<'a> {
    service: &'a Service,
    client: OrganizationServiceClient<Searched<Channel>>,
    times: Vec<Duration>,
}

impl<'a> Probe<'a> {
    pub fn new(service: &'a Service) -> Self {
        Self { service, client: service.grpc(), times: Vec::new() }
    }

    /// One request, which must be answered as it should.
    pub async fn once(&mut self) {
        let (number, begin) = (self.times.len(), Instant::now());
        let name = format!("Probe {number}");
        if number.is_multiple_of(2) {
            let body = format!(r#"{{"name": "{name}"}}"#);
            let answer = self.service.put(OWN, ADMINISTRATOR, &body).send().await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        } else {
            let organization =
                Organization { id: OWN, name: Some(name), ..Organization::default() };
            let update = UpdateOrganizationRequest {
                organization: Some(organization),
                ..UpdateOrganizationRequest::default()
            };
            self.client.update(authorized(ADMINISTRATOR, update)).await.unwrap();
        }
        self.times.push(begin.elapsed());
    }

    /// A request every 15 ms, for as long as something else goes on.
    pub async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let is_done = Cell::new(false);
        let other = async {
            let done = other.await;
            is_done.set(true);
            done
        };
        let probing = async {
            while !is_done.get() {
                self.once().await;
                sleep(Duration::from_millis(15)).await;
            }
        };
        tokio::join!(other, probing).0
    }

    /// The time within which 99 of 100 requests were answered.
    pub fn p99(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}
