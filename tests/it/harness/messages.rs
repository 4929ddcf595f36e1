//! Messages of PostgreSQL's protocol (version 3), as the proxy of the faults reads and makes them.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A client's simple query, where what it sets by `set_config` holds until its end alone.
pub(super) fn with_local_settings(message: &[u8]) -> Bytes {
    let (head, text) = message.split_at(5);
    let text = std::str::from_utf8(text).unwrap().replace(", false)", ", true )");
    [head, text.as_bytes()].concat().into()
}

/// `ErrorResponse` and `ReadyForQuery`.
pub(super) fn refusal(code: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{code}\0Minjected by the test\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [b"E", &length[..], fields.as_bytes(), b"Z\0\0\0\x05I"].concat()
}

/// One side's messages.
pub(super) struct Messages<'a> {
    stream: &'a mut TcpStream,
    read: BytesMut,
    /// A client's first message has no tag.
    is_tagged: bool,
}

impl<'a> Messages<'a> {
    pub(super) fn new(stream: &'a mut TcpStream, is_client: bool) -> Self {
        Self { stream, read: BytesMut::new(), is_tagged: !is_client }
    }

    /// The next whole message; none at the end. What is read is kept where nobody waits any more.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let tag = usize::from(self.is_tagged);
            if let Some(length) = self.read.get(tag..tag + 4) {
                let length = u32::from_be_bytes(length.try_into().unwrap());
                let length = tag + usize::try_from(length).unwrap();
                if self.read.len() >= length {
                    let message = self.read.split_to(length).freeze();
                    // SSLRequest and GSSENCRequest: refused, and another first message follows.
                    if !self.is_tagged && matches!(&message[4..], [0x04, 0xd2, 0x16, 0x2f | 0x30]) {
                        self.send(b"N").await?;
                        continue;
                    }
                    return Ok(Some(message));
                }
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The message's tag; zero for the first of a client.
    pub(super) fn tag(&mut self, message: &[u8]) -> u8 {
        if std::mem::replace(&mut self.is_tagged, true) { message[0] } else { 0 }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}
