//! A simulated client: each of its updates is sent until it is acknowledged, always under its own key
//! and on the version that the client knows.

use std::{cell::Cell, rc::Rc, time::Duration};

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, timeout};
use turmoil::net::TcpStream;

use super::{
    dice::Dice,
    hosts::{GATEWAY, REST_PORT, SERVICE, limits},
};
use crate::harness::ADMINISTRATOR;

/// Updates while there are faults.
pub(super) const UPDATES: i64 = 8;
/// Updates when there are none any more: one at each host.
pub(super) const UPDATES_AFTER: i64 = 2;
/// How long a client waits for an answer: longer than the service takes for any.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the service and a gateway's channel may take to find out that the network is whole again:
/// a ping every 10 s, 3 s for its answer, and a connection.
const SETTLE: Duration = Duration::from_secs(16);
/// Answers that say that an update may be sent again.
const AGAIN: [u16; 3] = [429, 503, 504];

pub(super) struct Client {
    pub(super) seed: u64,
    pub(super) id: i64,
    pub(super) is_http2: bool,
    pub(super) dice: Dice,
    /// Whether the faults have ended.
    pub(super) is_healed: Rc<Cell<bool>>,
    /// Answers that were refusals or never came.
    pub(super) failures: Rc<Cell<u64>>,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// The name that an update gives, by its number.
    pub(super) fn name(seed: u64, id: i64, round: i64) -> String {
        format!("Seed {seed}, organization {id}, update {round}")
    }

    pub(super) async fn run(self) -> turmoil::Result {
        let mut connection = None;
        for round in 0..UPDATES {
            while !self.is_acknowledged(&mut connection, round, self.any_host()).await? {
                self.failures.set(self.failures.get() + 1);
                sleep(self.dice.time_ms(300)).await;
            }
            sleep(self.dice.time_ms(1500)).await;
        }
        while !self.is_healed.get() {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(SETTLE).await;
        for (round, host) in (UPDATES..).zip([SERVICE, GATEWAY]) {
            let begun = Instant::now();
            assert!(self.is_acknowledged(&mut None, round, host).await?, "healed, {host} answers");
            let took = begun.elapsed();
            assert!(took < limits().request_deadline.0, "{host} took {took:?}");
        }
        Ok(())
    }

    fn any_host(&self) -> &'static str {
        if self.dice.below(2) == 0 { SERVICE } else { GATEWAY }
    }

    /// Sends an update once. A connection on which that failed is given up.
    async fn is_acknowledged(
        &self,
        connection: &mut Option<(&'static str, Connection)>,
        round: i64,
        host: &'static str,
    ) -> Result<bool> {
        let kept = connection.take().filter(|(kept_host, _)| *kept_host == host);
        let kept = kept.map(|(_, kept)| kept);
        match timeout(PATIENCE, self.send(kept, round, host)).await {
            Ok(Ok((status, kept))) => {
                *connection = Some((host, kept));
                assert!(status == 200 || AGAIN.contains(&status), "an answer of status {status}");
                Ok(status == 200)
            }
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    async fn send(
        &self,
        kept: Option<Connection>,
        round: i64,
        host: &'static str,
    ) -> Result<(u16, Connection)> {
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect(host).await?,
        };
        let path = format!("/v1/organizations/{}", self.id);
        let uri = if self.is_http2 { format!("http://{host}{path}") } else { path };
        let key = format!("{:08x}-0000-4000-8000-{:06x}{round:06x}", self.seed, self.id);
        let body = serde_json::json!({"name": Self::name(self.seed, self.id, round)});
        let request = http::Request::put(uri)
            .header("host", host)
            .header("authorization", format!("Bearer {ADMINISTRATOR}"))
            .header("content-type", "application/json")
            .header("if-match", format!("\"{}\"", round + 1))
            .header("idempotency-key", key)
            .body(Body::from(body.to_string()))?;
        let answer = match &mut connection {
            Connection::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = answer.into_parts();
        body.collect().await?;
        Ok((head.status.as_u16(), connection))
    }

    async fn connect(&self, host: &'static str) -> Result<Connection> {
        let io = TokioIo::new(TcpStream::connect((host, REST_PORT)).await?);
        if self.is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            drop(tokio::task::spawn_local(async { drop(connection.await) }));
            return Ok(Connection::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        drop(tokio::task::spawn_local(async { drop(connection.await) }));
        Ok(Connection::Http1(sender))
    }
}
