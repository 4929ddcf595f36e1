//! An HTTP/2 client that sends the frames that it is told, and answers nothing by itself.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// Types of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames; `ACK` is another name for the first.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection's first bytes: the preface and an empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literal fields, none of which is indexed (RFC 7541 §6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            write_length(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
pub fn write_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(length.try_into().unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(rest.try_into().unwrap());
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `RST_STREAM` or of a `GOAWAY`.
    pub fn error_code(&self) -> u32 {
        let (_, code) = self.payload.split_at(if self.kind == kind::GOAWAY { 4 } else { 0 });
        u32::from_be_bytes(code[..4].try_into().unwrap())
    }
}

pub struct RawHttp2(TcpStream);

impl RawHttp2 {
    /// A connection with its preface and its empty SETTINGS.
    pub async fn connect(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        Self(stream)
    }

    /// Sends a frame; whether the connection still took it.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&frame(kind, flags, stream, payload)).await.is_ok()
    }

    /// Sends a request of a whole: its fields, and no body.
    pub async fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> bool {
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await
    }

    /// Begins a gRPC call, and sends its one message unless it is to stay open.
    pub async fn call(&mut self, stream: u32, path: &str, message: Option<&[u8]>) -> bool {
        let block = block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]);
        let is_sent = self.send(kind::HEADERS, END_HEADERS, stream, &block).await;
        let Some(message) = message else { return is_sent };
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0], &length[..], message].concat();
        is_sent && self.send(kind::DATA, END_STREAM, stream, &body).await
    }

    /// Begins to watch the service's health, a stream without an end.
    pub async fn watch_health(&mut self, stream: u32) -> bool {
        self.call(stream, "/grpc.health.v1.Health/Watch", Some(&[])).await
    }

    /// The next frame; none once the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length.try_into().unwrap()];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            Some(Frame { kind: head[3], stream, payload })
        };
        timeout(PATIENCE, reading).await.expect("a frame, or the end of the connection")
    }

    /// The next frame of a kind; none if the connection ends before.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}
