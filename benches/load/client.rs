//! The clients: one connection that sends a request when it is told to, and waits for its answer.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
};

use clap::ValueEnum;
use orgd::proto::v1::{
    GetOrganizationRequest, Organization, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tonic::{
    Code,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

/// Addresses that connections over HTTP/1.1 come from. A service lets one address have a share of its connections
/// alone.
const SOURCES: u32 = 64;

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// `GET /livez` of the operations listener
    Livez,
    /// REST `OPTIONS`
    Options,
    /// REST `GET` without a credential
    Stranger,
    /// REST `GET`
    Get,
    /// REST `PUT` of a name with `validateOnly`
    DryRun,
    /// REST `PUT` of a name
    Put,
    /// gRPC `Get`
    GrpcGet,
    /// gRPC `Update` of a name
    Update,
}

impl Call {
    /// The call as a worker's flag names it.
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Self::GrpcGet | Self::Update)
    }

    /// Whether it writes to the database.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Put | Self::Update)
    }

    /// How an answer begins that is as it should be.
    fn answer_start(self) -> &'static [u8] {
        match self {
            Self::Options => b"HTTP/1.1 204 ",
            Self::Stranger => b"HTTP/1.1 401 ",
            _ => b"HTTP/1.1 200 ",
        }
    }
}

/// One request's own part.
pub struct Request<'a> {
    pub organization: u64,
    pub credential: &'a Credential,
    /// Makes the new name one that no request had before.
    pub name: u64,
}

/// A bearer token as either client sends it.
pub struct Credential {
    token: String,
    metadata: MetadataValue<Ascii>,
}

impl Credential {
    pub fn new(token: String) -> Self {
        let metadata = format!("Bearer {token}").parse().unwrap();
        Self { token, metadata }
    }
}

/// How a request was answered that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// 429 or `RESOURCE_EXHAUSTED`: the service has too much to do.
    Refused,
}

pub enum Client {
    Rest(Rest),
    Grpc(Call, OrganizationServiceClient<Channel>),
}

impl Client {
    /// The client with this number, of one of [`SOURCES`] addresses.
    pub async fn connect(call: Call, addr: SocketAddr, number: u32) -> Self {
        if call.is_grpc() {
            let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
            let channel = endpoint.tcp_nodelay(true).connect().await.unwrap();
            return Self::Grpc(call, OrganizationServiceClient::new(channel));
        }
        let socket = TcpSocket::new_v4().unwrap();
        let source = u32::from(Ipv4Addr::LOCALHOST) + number % SOURCES;
        socket.bind((Ipv4Addr::from(source), 0).into()).unwrap();
        let stream = socket.connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Rest(Rest { call, addr, stream, request: Vec::new(), answer: vec![0; 16 * 1024] })
    }

    /// Sends a request and waits for its whole answer; an error is any that [`Answer`] does not have.
    pub async fn call(&mut self, request: &Request<'_>) -> Result<Answer, String> {
        match self {
            Self::Rest(rest) => rest.call(request).await,
            Self::Grpc(call, client) => grpc(*call, client, request).await,
        }
    }
}

/// HTTP/1.1 by hand, because the load shares the processors with what it measures: one write and
/// mostly one read a request, into buffers that are used again.
pub struct Rest {
    call: Call,
    addr: SocketAddr,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Rest {
    async fn call(&mut self, request: &Request<'_>) -> Result<Answer, String> {
        self.write(request);
        self.stream.write_all(&self.request).await.map_err(|error| error.to_string())?;
        let mut filled = 0;
        loop {
            let free = &mut self.answer[filled..];
            match self.stream.read(free).await {
                Ok(0) => return Err("the connection ended inside an answer".to_owned()),
                Ok(read) => filled += read,
                Err(error) => return Err(error.to_string()),
            }
            let answer = &self.answer[..filled];
            if is_whole(answer) {
                return match answer {
                    _ if answer.starts_with(self.call.answer_start()) => Ok(Answer::Done),
                    _ if answer.starts_with(b"HTTP/1.1 429 ") => Ok(Answer::Refused),
                    _ => Err(summary(answer)),
                };
            }
        }
    }

    fn write(&mut self, request: &Request<'_>) {
        let Self { call, addr, request: buffer, .. } = self;
        let Request { organization, credential: Credential { token, .. }, name } = request;
        let method = match call {
            Call::Options => "OPTIONS",
            Call::Put | Call::DryRun => "PUT",
            _ => "GET",
        };
        buffer.clear();
        let path = match call {
            Call::Livez => write!(buffer, "{method} /livez"),
            _ => write!(buffer, "{method} /v1/organizations/{organization}"),
        };
        let query = if *call == Call::DryRun { "?validateOnly=true" } else { "" };
        let head = write!(buffer, "{query} HTTP/1.1\r\nHost: {addr}\r\n");
        let credential = match call {
            Call::Livez | Call::Options | Call::Stranger => Ok(()),
            _ => write!(buffer, "Authorization: Bearer {token}\r\n"),
        };
        let body = match call {
            // The name has always 29 bytes, and the body therefore 40.
            Call::Put | Call::DryRun => write!(
                buffer,
                "Content-Type: application/json\r\nContent-Length: 40\r\n\r\n\
                 {{\"name\":\"Organization {name:016x}\"}}"
            ),
            _ => write!(buffer, "\r\n"),
        };
        path.and(head).and(credential).and(body).unwrap();
    }
}

/// Whether all of an answer is there. Looked at from the end, because bodies are short and the
/// length is among the last headers.
fn is_whole(answer: &[u8]) -> bool {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let Some(head) = answer.windows(HEAD_END.len()).rposition(|window| window == HEAD_END) else {
        return false;
    };
    answer.len() - head - HEAD_END.len() == content_length(&answer[..head])
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length: ";
    if head.starts_with(b"HTTP/1.1 204 ") {
        return 0;
    }
    let value = head.rsplit(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
    });
    let digits = value.expect("every other answer has a Content-Length");
    digits.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// An answer in one line: its status line and its body.
fn summary(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    format!("{status}: {}", text.lines().last().unwrap_or_default())
}

async fn grpc(
    call: Call,
    client: &mut OrganizationServiceClient<Channel>,
    request: &Request<'_>,
) -> Result<Answer, String> {
    let id = request.organization as i64;
    let answer = if call == Call::GrpcGet {
        client.get(message(request, GetOrganizationRequest { id, ..Default::default() })).await
    } else {
        let name = Some(format!("Organization {:016x}", request.name));
        let organization = Some(Organization { id, name, ..Default::default() });
        let update = UpdateOrganizationRequest { organization, ..Default::default() };
        client.update(message(request, update)).await
    };
    match answer {
        Ok(_) => Ok(Answer::Done),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(Answer::Refused),
        Err(status) => Err(status.to_string()),
    }
}

/// A message with the credential of its request.
fn message<T>(request: &Request<'_>, message: T) -> tonic::Request<T> {
    let mut message = tonic::Request::new(message);
    message.metadata_mut().insert("authorization", request.credential.metadata.clone());
    message
}
