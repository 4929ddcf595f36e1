//! Finds the lines of heads on an HTTP/1 connection, so that a bare LF in one is refused.

/// Follows the requests of a connection byte by byte, by the same rules as hyper: a head, then as many
/// bytes as it declares or chunks, then the next head. How the bytes fall into reads does not matter.
///
/// hyper takes a bare LF for the end of a line, as it may (RFC 9112 §2.2). A proxy in front that takes it
/// for a part of a value would then send us a request, or a length, that it never saw.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    /// Bytes of content that are still to come before the next line.
    content: u64,
    next: Line,
    /// The part of the line that has come. hyper reads no more of it than its own limit of a head.
    line: Vec<u8>,
    body: Body,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// The first of a head; empty ones before it count for nothing.
    #[default]
    Request,
    Field,
    ChunkSize,
    /// Behind the content of a chunk; empty.
    ChunkEnd,
    Trailer,
}

/// What a head says of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// The content where lines are not followed any more: hyper refuses the head and reads nothing behind it, or
/// it is HTTP/2, which has no lines.
const NOT_FOLLOWED: u64 = u64::MAX;

impl Framing {
    /// Whether a head has begun and is not complete.
    pub(crate) fn is_in_head(&self) -> bool {
        self.next == Line::Field || self.next == Line::Request && !self.line.is_empty()
    }

    /// Follows the bytes of one read. A bare LF in a head or a trailer becomes a NUL, which hyper refuses
    /// when it comes to it, so requests before it are still answered.
    pub(crate) fn follow(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let content = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
            self.content -= u64::try_from(content).unwrap_or(0);
            bytes = bytes.split_at_mut(content).1;
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                return;
            };
            let (rest, behind) = bytes.split_at_mut(end + 1);
            self.line.extend_from_slice(rest);
            bytes = behind;
            if let Some(line) = self.line.strip_suffix(b"\r\n") {
                (self.next, self.content) = after(self.next, line, &mut self.body);
            } else {
                self.content = NOT_FOLLOWED;
                // In the lines between chunks hyper takes no bare LF, but takes a NUL in an extension.
                if !matches!(self.next, Line::ChunkSize | Line::ChunkEnd)
                    && let Some(line_feed) = rest.last_mut()
                {
                    *line_feed = 0;
                    self.next = Line::Field;
                }
            }
            self.line.clear();
        }
    }
}

/// What comes behind a line: the kind of the next one, and the content before it.
fn after(kind: Line, line: &[u8], body: &mut Body) -> (Line, u64) {
    match kind {
        Line::Request | Line::Trailer if line.is_empty() => (Line::Request, 0),
        Line::Request if line == b"PRI * HTTP/2.0" => (Line::Request, NOT_FOLLOWED),
        Line::Request => {
            *body = Body::None;
            (Line::Field, 0)
        }
        Line::Field if !line.is_empty() => {
            note_field(line, body);
            (Line::Field, 0)
        }
        Line::Field => match *body {
            Body::None => (Line::Request, 0),
            Body::Length(length) => (Line::Request, length),
            Body::Chunked => (Line::ChunkSize, 0),
        },
        Line::ChunkSize => match chunk_size(line) {
            0 => (Line::Trailer, 0),
            size => (Line::ChunkEnd, size),
        },
        Line::ChunkEnd => (Line::ChunkSize, 0),
        Line::Trailer => (Line::Trailer, 0),
    }
}

/// Notes what a field says of the body. hyper refuses two lengths that differ, a coding other than `chunked`,
/// and a length that is no number. Beside a coding, a length is ignored.
fn note_field(line: &[u8], body: &mut Body) {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        *body = Body::Chunked;
    } else if name.eq_ignore_ascii_case(b"content-length") && *body != Body::Chunked {
        *body = Body::Length(number(value.trim_ascii(), 10));
    }
}

fn chunk_size(line: &[u8]) -> u64 {
    number(line.split(|byte| !byte.is_ascii_hexdigit()).next().unwrap_or_default(), 16)
}

fn number(digits: &[u8], radix: u32) -> u64 {
    let is_plain = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_plain);
    digits.and_then(|digits| u64::from_str_radix(digits, radix).ok()).unwrap_or(NOT_FOLLOWED)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use proptest::{collection::vec, prelude::*, sample::select};
    use tokio::{io::AsyncWriteExt, sync::mpsc};

    use super::Framing;

    const HEAD: &str = "PUT / HTTP/1.1\r\nHost: x\r\n";

    /// What is handed over of bytes that come in these reads.
    fn followed(reads: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Vec<u8> {
        let mut framing = Framing::default();
        let read = |bytes: Vec<u8>| {
            let mut bytes = bytes;
            framing.follow(&mut bytes);
            bytes
        };
        reads.into_iter().map(Into::into).flat_map(read).collect()
    }

    /// Cases behind a good head's first lines: a `^` stands for a bare LF that is not taken, and `\n`
    /// without a CR for one that is none of a line's.
    const CASES: [(&str, &str); 19] = [
        ("no body", "\r\n"),
        ("a field", "X-A: a^X-B: b\r\n\r\n"),
        ("the head's end", "X-A: a\r\n^"),
        ("behind an empty line", "\r\n\r\n^"),
        ("the second head", "\r\nGET / HTTP/1.1^"),
        ("a field of the second head", "\r\n{HEAD}X-A: a^"),
        ("a length", "Content-Length: 3\r\n\r\n\n\n\n^"),
        ("a length, padded", "CONTENT-length:\t 2  \r\n\r\n\n\n{HEAD}X: ^"),
        ("a length of none", "Content-Length: 0\r\n\r\n^"),
        ("two lengths that agree", "Content-Length: 1\r\nContent-Length: 1\r\n\r\n\n^"),
        ("a length that is none", "Content-Length: x\r\n\r\n\n"),
        ("a length over all", "Content-Length: 99999999999999999999\r\n\r\n\n"),
        (
            "chunks",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\nA;x=y\r\n0\r\n\r\n\n3456\r\n0\r\n\r\n^",
        ),
        (
            "chunks and a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n^",
        ),
        (
            "a length and chunks",
            "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n^",
        ),
        ("a trailer", "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: a^X-B: b\r\n\r\n"),
        ("in place of a trailer", "Transfer-Encoding: chunked\r\n\r\n0\r\n^"),
        ("behind a trailer", "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: a\r\n\r\n{HEAD}X-A: ^"),
        ("a chunk's line, which hyper refuses", "Transfer-Encoding: chunked\r\n\r\n2;a\n"),
    ];

    #[test]
    fn a_bare_line_feed_is_found_in_each_head_and_nowhere_else() {
        for (name, case) in CASES {
            let case = format!("{HEAD}{case}").replace("{HEAD}", HEAD);
            let bytes = case.replace('^', "\n").into_bytes();
            let expected = case.replace('^', "\0");
            let whole = String::from_utf8(followed([bytes.clone()])).unwrap();
            assert_eq!(whole, expected, "{name}");
            for at in 0..=bytes.len() {
                let (first, second) = bytes.split_at(at);
                let split = followed([first, second]);
                assert_eq!(split, expected.as_bytes(), "{name}, at {at}");
            }
            assert_eq!(followed(bytes.chunks(1)), expected.as_bytes(), "{name}, byte by byte");
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\n\n\n";
        assert_eq!(followed(preface.chunks(1)), preface);
    }

    /// What hyper reads of a connection's bytes: of each request, its fields and its body.
    async fn read_by_hyper(bytes: &[u8]) -> Vec<(Vec<String>, Option<Vec<u8>>)> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let (sender, mut requests) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                let names = request.headers().keys().map(ToString::to_string).collect();
                let body = request.into_body().collect().await.ok();
                let _ = sender.send((names, body.map(|body| body.to_bytes().to_vec())));
                Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
            }
        });
        let _ = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service)
            .await;
        let mut read = Vec::new();
        while let Some(request) = requests.recv().await {
            read.push(request);
        }
        read
    }

    fn blocking<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn in_reads(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let mut framing = Framing::default();
        let mut bytes = bytes.to_vec();
        let mut rest = bytes.as_mut_slice();
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = sizes.next().map_or(1, |size| *size).min(rest.len());
            let (read, behind) = rest.split_at_mut(size);
            framing.follow(read);
            rest = behind;
        }
        bytes
    }

    /// Pieces of heads, bodies and what goes wrong in them. `X-Bare` is a field only to whoever takes a
    /// bare LF for the end of a line.
    const PIECES: [&str; 22] = [
        "GET / HTTP/1.1\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na\nb\n\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Host: x\r\n",
        "X: a\nX-Bare: b\r\n",
        "X-Bare: a\n",
        "Content-Length: 3\r\n",
        "Content-Length: 12\r\n",
        "Content-Length: 1f\r\n",
        "content-LENGTH:\t0 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Connection: keep-alive\r\n",
        "\r\n",
        "\n",
        "\r",
        "3\r\na\nb\r\n",
        "A;x=\"\n\"\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "0\r\nX: a\nX-Bare: b\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];

    /// A request that is read in one way, with whatever bytes in its body.
    fn good_request() -> impl Strategy<Value = Vec<u8>> {
        let body = vec(select(b"\n\r0aG:; ".as_slice()), 0..40);
        (body, 0_usize..4, any::<bool>()).prop_map(|(body, size, is_padded)| {
            let mut bytes = if is_padded { b"\r\n".to_vec() } else { Vec::new() };
            bytes.extend_from_slice(HEAD.as_bytes());
            if size == 0 {
                let length = format!("Content-Length: {}\r\n\r\n", body.len());
                return [bytes.as_slice(), length.as_bytes(), &body].concat();
            }
            bytes.extend_from_slice(b"Transfer-Encoding: Chunked\r\n\r\n");
            for chunk in body.chunks(size * 7) {
                bytes.extend_from_slice(format!("{:X} ;a=b\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"000\r\nX: a\r\n\r\n");
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_is_found_does_not_depend_on_the_reads(
            pieces in vec(select(PIECES.as_slice()), 1..14),
            sizes in vec(1_usize..30, 1..8),
        ) {
            let bytes = pieces.concat().into_bytes();
            prop_assert_eq!(in_reads(&bytes, &sizes), followed([bytes]));
        }

        #[test]
        fn hyper_takes_no_head_with_a_bare_line_feed(pieces in vec(select(PIECES.as_slice()), 1..14)) {
            let bytes = pieces.concat().into_bytes();
            let (all, read) = blocking(async {
                (read_by_hyper(&bytes).await, read_by_hyper(&followed([bytes.clone()])).await)
            });
            for (number, request) in read.iter().enumerate() {
                prop_assert!(!request.0.contains(&"x-bare".to_owned()));
                // A body that broke off at what is refused now.
                prop_assert!(all.get(number) == Some(request) || request.1.is_none());
            }
        }

        #[test]
        fn good_requests_are_all_left_as_they_are(
            requests in vec(good_request(), 1..6),
            sizes in vec(1_usize..30, 1..8),
        ) {
            let bytes = requests.concat();
            prop_assert_eq!(&in_reads(&bytes, &sizes), &bytes);
            prop_assert_eq!(blocking(read_by_hyper(&bytes)).len(), requests.len());
        }
    }
}
