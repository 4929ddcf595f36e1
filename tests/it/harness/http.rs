//! An HTTP/1.1 client that sends what it is told and nothing else.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use axum::body::Body;
use http::{HeaderName, HeaderValue, header::HOST};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use super::disclosure::assert_tells_nothing;

/// A connection from one of the addresses of loopback, as a client elsewhere has an address of its own.
pub async fn connect_from(from: Ipv4Addr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(addr).await
}

/// A request on a connection of its own.
pub struct Request {
    addr: SocketAddr,
    from: Option<Ipv4Addr>,
    inner: http::Request<Body>,
}

impl Request {
    pub fn new(addr: SocketAddr, method: &str, path: &str) -> Self {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header(HOST, addr.to_string()).body(Body::empty()).unwrap();
        Self { addr, from: None, inner: request }
    }

    /// Calls from another address of loopback.
    pub fn calling_from(mut self, from: Ipv4Addr) -> Self {
        self.from = Some(from);
        self
    }

    /// Adds a header line, beside any of the same name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.inner.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// The Authorization header of a bearer token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Takes away every header line of a name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.inner.headers_mut().remove(name);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.inner.body_mut() = body.into();
        self
    }

    /// The answer; a refusal is searched for our insides.
    pub async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    /// The same where the answer may fail to come.
    pub async fn try_send(self) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let answer = self.exchange().await?;
        if answer.status() >= 400 {
            assert_tells_nothing(&answer.whole());
        }
        Ok(answer)
    }

    async fn exchange(self) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let stream = match self.from {
            Some(from) => connect_from(from, self.addr).await?,
            None => TcpStream::connect(self.addr).await?,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let (head, body) = sender.send_request(self.inner).await?.into_parts();
            Ok(Answer { head, body: body.collect().await?.to_bytes().to_vec() })
        };
        tokio::select! {
            answer = exchange => answer,
            Err(error) = connection => Err(error.into()),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    head: http::response::Parts,
    body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The one line of a header, or none; several are a failure.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines: Vec<_> = self.head.headers.get_all(name).iter().collect();
        assert!(lines.len() <= 1, "{name} came {} times", lines.len());
        lines.first().map(|line| line.to_str().unwrap())
    }

    /// Its headers and its body, as they are read by people.
    fn whole(&self) -> String {
        let lines = self.head.headers.iter();
        let lines =
            lines.map(|(name, value)| format!("{name}: {}\n", value.as_bytes().escape_ascii()));
        format!("{}\n{}", lines.collect::<String>(), String::from_utf8_lossy(&self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The reason of a problem, or an empty string for any other answer.
    pub fn reason(&self) -> String {
        if self.header("content-type") != Some("application/problem+json") {
            return String::new();
        }
        self.json()["reason"].as_str().unwrap().to_owned()
    }

    /// The pointers of a problem's errors.
    pub fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|error| error["pointer"].as_str().map(str::to_owned)).collect()
    }

    /// Every header line, by name.
    pub fn header_lines(&self) -> Vec<(String, String)> {
        let lines = self.head.headers.iter();
        lines.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }
}
