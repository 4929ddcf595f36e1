//! Connections of HTTP/1.1 whose bytes a test chooses.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// A request that is answered without a credential.
pub const OPTIONS: &str = "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A connection of HTTP/1.1 that sends what it is told, as one packet.
pub struct RawHttp1(TcpStream);

impl RawHttp1 {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &str) {
        // Fails where the connection has ended, which the answer tells.
        let _ = self.0.write_all(bytes.as_bytes()).await;
    }

    /// The next head of an answer, with its body behind it; empty where the connection has ended.
    pub async fn answer(&mut self) -> String {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match self.0.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return String::new(),
                }
            }
            let head = String::from_utf8(head).unwrap();
            let length = |line: &str| line.strip_prefix("Content-Length: ")?.parse().ok();
            let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
            self.0.read_exact(&mut body).await.unwrap();
            head + &String::from_utf8(body).unwrap()
        };
        timeout(PATIENCE, reading).await.expect("an answer, or an end")
    }

    pub async fn ask(&mut self, bytes: &str) -> String {
        self.send(bytes).await;
        self.answer().await
    }
}

/// Whether a request on a connection is answered; false once the connection has ended.
pub async fn is_answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(OPTIONS.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer, or an end");
    read.is_ok_and(|count| count > 0)
}

/// Waits until the other side closes a connection.
pub async fn until_closed(stream: &mut TcpStream) {
    let closing = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
    timeout(PATIENCE, closing).await.expect("the connection ends");
}
