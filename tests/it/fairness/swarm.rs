//! One abuser's requests on many streams of HTTP/2: each place asks again as soon as it is answered, or
//! never takes its answer.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, sleep_until},
};

use super::abuser::Tally;
use crate::harness::{END_HEADERS, END_STREAM, PREFACE, block, connect_from, frame, kind};

/// The largest of windows (RFC 9113 §6.9.1).
const WINDOW_MAX: u32 = 0x7fff_ffff;
/// How much is taken before the connection's window is made that large again.
const TAKEN_MAX: u32 = 1 << 20;
/// How long an abuser rests whose connection or stream was ended without an answer.
const REST: Duration = Duration::from_millis(200);
/// How much later each connection begins than the one before, of an abuser who wants long answers and does
/// not take them: all at once would only be refused.
const APART: Duration = Duration::from_millis(300);
/// `grpc-status` as a literal name in Huffman's code.
const GRPC_STATUS: &[u8] = &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

/// A request as it is sent on a stream.
#[derive(Clone)]
pub struct Ask {
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Ask {
    pub fn rest(method: &str, path: &str, token: &str) -> Self {
        let fields =
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")];
        let mut fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        fields.push(("authorization", format!("Bearer {token}")));
        Self { fields, body: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// `PUT` of a name by REST.
    pub fn put(organization: i64, token: &str) -> Self {
        let path = format!("/v1/organizations/{organization}");
        let put = Self::rest("PUT", &path, token).with("content-type", "application/json");
        put.body(r#"{"name": "Abuse"}"#)
    }

    /// The longest page of a log by REST.
    pub fn page(method: &str, organization: i64, token: &str) -> Self {
        let path = format!("/v1/organizations/{organization}/changes?pageSize=500");
        Self::rest(method, &path, token)
    }

    /// The changes of an organization as they come, by REST.
    pub fn events(organization: i64, token: &str) -> Self {
        let path = format!("/v1/organizations/{organization}/changes");
        Self::rest("GET", &path, token).with("accept", "text/event-stream")
    }

    pub fn grpc(method: &str, token: &str, message: &impl Message) -> Self {
        let path = format!("/organization.v1.OrganizationService/{method}");
        let ask = Self::rest("POST", &path, token).with("content-type", "application/grpc");
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        ask.with("te", "trailers").body([&[0], &length[..], &message].concat())
    }

    fn on(&self, stream: u32) -> Vec<u8> {
        let block = block(&self.fields);
        if self.body.is_empty() {
            return frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block);
        }
        let head = frame(kind::HEADERS, END_HEADERS, stream, &block);
        [head, frame(kind::DATA, END_STREAM, stream, &self.body)].concat()
    }
}

/// How many ask for what, from where.
#[derive(Clone)]
pub struct Swarm {
    pub to: SocketAddr,
    pub from: Ipv4Addr,
    pub connections: u32,
    /// How many places each of them has.
    pub streams: usize,
    pub ask: Ask,
    /// Whether bodies of answers are taken.
    pub reads: bool,
    /// How long a place rests that was answered.
    pub rest: Duration,
}

impl Swarm {
    /// One connection after the other in the place of one of them, until it is dropped.
    pub async fn keep(self, number: u32, tally: Tally) {
        if !self.reads {
            sleep(APART * number).await;
        }
        loop {
            let Err(end) = self.connection(&tally).await;
            tally.note(match end.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    "closed".to_owned()
                }
                io::ErrorKind::BrokenPipe => "closed".to_owned(),
                kind => format!("{kind:?}"),
            });
            sleep(REST).await;
        }
    }

    async fn connection(&self, tally: &Tally) -> io::Result<std::convert::Infallible> {
        let mut stream = connect_from(self.from, self.to).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(self, tally);
        let (mut read, mut write) = stream.split();
        loop {
            let due = connection.places.front().copied();
            tokio::select! {
                count = read.read_buf(&mut connection.inbox) => {
                    if count? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    while connection.take_frame() {}
                }
                count = write.write(&connection.outbox), if !connection.outbox.is_empty() => {
                    connection.outbox.drain(..count?);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    connection.ask();
                }
            }
        }
    }
}

struct Connection<'a> {
    swarm: &'a Swarm,
    tally: &'a Tally,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// When each free place is to be asked for, the earliest first.
    places: VecDeque<Instant>,
    open: BTreeSet<u32>,
    next: u32,
    taken: u32,
    is_going_away: bool,
}

impl<'a> Connection<'a> {
    fn new(swarm: &'a Swarm, tally: &'a Tally) -> Self {
        let window = if swarm.reads { WINDOW_MAX } else { 0 };
        // No dynamic table, so that every status can be read by itself; then the window of streams.
        let settings = [&[0, 1, 0, 0, 0, 0, 0, 4][..], &window.to_be_bytes()].concat();
        let mut outbox = [&PREFACE[..24], &frame(kind::SETTINGS, 0, 0, &settings)].concat();
        let more = (WINDOW_MAX - 65_535).to_be_bytes();
        outbox.extend(frame(kind::WINDOW_UPDATE, 0, 0, &more));
        Self {
            swarm,
            tally,
            inbox: Vec::new(),
            outbox,
            places: vec![Instant::now(); swarm.streams].into(),
            open: BTreeSet::new(),
            next: 1,
            taken: 0,
            is_going_away: false,
        }
    }

    /// Asks on every place that is due.
    fn ask(&mut self) {
        let now = Instant::now();
        while self.places.pop_front_if(|due| *due <= now).is_some() {
            if self.is_going_away {
                continue;
            }
            self.outbox.extend(self.swarm.ask.on(self.next));
            self.open.insert(self.next);
            self.next += 2;
        }
    }

    /// The place of a stream is free again.
    fn end(&mut self, stream: u32, rest: Duration) {
        if self.open.remove(&stream) {
            let due = Instant::now() + rest;
            self.places.insert(self.places.partition_point(|earlier| *earlier <= due), due);
        }
    }

    /// Takes a whole frame from what came; whether there was one.
    fn take_frame(&mut self) -> bool {
        let Some(head) = self.inbox.first_chunk::<9>().copied() else { return false };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if self.inbox.len() < 9 + length {
            return false;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload: Vec<_> = self.inbox.drain(..9 + length).skip(9).collect();
        let (kind, flags) = (head[3], head[4]);
        match kind {
            kind::SETTINGS if flags & 1 == 0 => self.outbox.extend(frame(kind, 1, 0, &[])),
            kind::PING if flags & 1 == 0 => self.outbox.extend(frame(kind, 1, 0, &payload)),
            kind::HEADERS => {
                if let Some(status) = status(&payload) {
                    if status != "200" && !self.swarm.reads {
                        // A short problem is taken: its place is for a long answer.
                        let window = 65_535_u32.to_be_bytes();
                        self.outbox.extend(frame(kind::WINDOW_UPDATE, 0, stream, &window));
                    }
                    self.tally.note(status);
                }
            }
            kind::DATA => {
                self.taken += u32::try_from(length).unwrap();
                if self.taken > TAKEN_MAX {
                    let taken = std::mem::take(&mut self.taken).to_be_bytes();
                    self.outbox.extend(frame(kind::WINDOW_UPDATE, 0, 0, &taken));
                }
            }
            kind::RST_STREAM => {
                self.tally.note(format!("reset {}", payload[3]));
                self.end(stream, REST.max(self.swarm.rest));
            }
            kind::GOAWAY => {
                self.tally.note(format!("GOAWAY {}", payload[7]));
                self.is_going_away = true;
            }
            _ => {}
        }
        if matches!(kind, kind::HEADERS | kind::DATA) && flags & END_STREAM != 0 {
            self.end(stream, self.swarm.rest);
            self.ask();
        }
        true
    }
}

/// The status that a block of headers begins with, or that of gRPC in trailers; 0 of gRPC is none.
fn status(block: &[u8]) -> Option<String> {
    // What the size of the table is made comes before the first field (RFC 7541 §6.3).
    let begin = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let block = &block[begin..];
    if let Some(at) = block.windows(GRPC_STATUS.len()).position(|part| part == GRPC_STATUS) {
        let code = digits(&block[at + GRPC_STATUS.len()..]);
        return (code != "0").then(|| format!("gRPC {code}"));
    }
    // Entries of the static table (RFC 7541, appendix A).
    let indexed = ["200", "204", "206", "304", "400", "404", "500"];
    match block[0] {
        index @ 0x88..=0x8e => Some(indexed[usize::from(index) - 0x88].to_owned()),
        0x08 | 0x18 | 0x48 => Some(digits(&block[1..])),
        _ => None,
    }
}

/// A short value of digits, in Huffman's code (RFC 7541, appendix B) or not.
fn digits(value: &[u8]) -> String {
    let (is_coded, length) = (value[0] & 0x80 != 0, usize::from(value[0] & 0x7f));
    let value = &value[1..=length];
    if !is_coded {
        return String::from_utf8_lossy(value).into_owned();
    }
    let bits: String = value.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut text) = (bits.as_str(), String::new());
    while let Some(five) = rest.get(..5) {
        let code = u8::from_str_radix(five, 2).unwrap();
        let (digit, length) = match (code, rest.get(..6)) {
            (0..=2, _) => (code, 5),
            (_, Some(six)) => (u8::from_str_radix(six, 2).unwrap().wrapping_sub(0b01_0110), 6),
            _ => break,
        };
        if digit > 9 {
            break;
        }
        text.push(char::from(b'0' + digit));
        rest = rest.get(length..).unwrap_or_default();
    }
    text
}
