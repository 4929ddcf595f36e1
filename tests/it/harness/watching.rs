//! Clients that follow changes: over gRPC, and as server-sent events.

use std::net::SocketAddr;

use orgd::proto::v1::{Change, WatchRequest};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tonic::{Status, Streaming};

use super::{ADMINISTRATOR, OWN, PATIENCE, Service, USER, authorized};

pub fn request(ids: &[i64], from: &[(i64, i64)]) -> WatchRequest {
    let from_versions = from.iter().copied().collect();
    WatchRequest { organization_ids: ids.to_vec(), from_versions }
}

pub async fn watch(
    service: &Service,
    token: &str,
    request: WatchRequest,
) -> Result<Streaming<Change>, Status> {
    Ok(service.grpc().watch(authorized(token, request)).await?.into_inner())
}

/// The next change, or how the stream ended.
pub async fn next(stream: &mut Streaming<Change>) -> Result<Change, Status> {
    let reading = async {
        loop {
            let next = stream.message().await?.expect("the stream has no end but an error");
            if !next.heartbeat {
                return Ok(next);
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("a change, or an end")
}

pub async fn rename(service: &Service, id: i64, name: &str) {
    let body = format!(r#"{{"name": "{name}"}}"#);
    assert_eq!(service.put(id, ADMINISTRATOR, &body).send().await.status(), 200);
}

/// A stream of events, line by line.
pub struct Events {
    pub head: String,
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

impl Events {
    pub async fn open(service: &Service, header: &str) -> Self {
        Self::open_at(service.http_addr(), header).await
    }

    /// The same by way of a proxy.
    pub async fn open_at(addr: SocketAddr, header: &str) -> Self {
        Self::open_with(addr, "", header).await
    }

    pub async fn open_with(addr: SocketAddr, query: &str, header: &str) -> Self {
        let request = format!(
            "GET /v1/organizations/{OWN}/events{query} HTTP/1.1\r\nHost: x\r\n{header}\
             Authorization: Bearer {USER}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let mut head = String::new();
        loop {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
            if line.is_empty() {
                return Self { head, lines };
            }
            head += &format!("{}\n", line.to_ascii_lowercase());
        }
    }

    /// The next line that begins so.
    pub async fn until(&mut self, begin: &str) -> String {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the stream goes on");
                if line.starts_with(begin) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {begin}"))
    }

    /// The next line; none at the end, in whichever way it comes.
    pub async fn line(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line, or the end");
        line.ok().flatten()
    }

    pub async fn until_end(&mut self) {
        let reading = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        timeout(PATIENCE, reading).await.expect("the stream ends");
    }
}
