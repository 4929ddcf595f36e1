//! The clients: one connection that sends a request when it is told to, and waits for its answer.

use std::{io::Write, net::SocketAddr};

use clap::ValueEnum;
use orgd::proto::v1::{
    Organization, UpdateOrganizationRequest, organization_service_client::OrganizationServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Code,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// REST `PUT` of a name
    Put,
    /// REST `GET`
    Get,
    /// gRPC `Update` of a name
    Update,
}

impl Call {
    /// The call as a worker's flag names it.
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
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
    Grpc(OrganizationServiceClient<Channel>),
}

impl Client {
    pub async fn connect(call: Call, addr: SocketAddr) -> Self {
        if call == Call::Update {
            let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
            let channel = endpoint.tcp_nodelay(true).connect().await.unwrap();
            return Self::Grpc(OrganizationServiceClient::new(channel));
        }
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Rest(Rest { call, addr, stream, request: Vec::new(), answer: vec![0; 16 * 1024] })
    }

    /// Sends a request and waits for its whole answer; an error is any that [`Answer`] does not have.
    pub async fn call(&mut self, request: &Request<'_>) -> Result<Answer, String> {
        match self {
            Self::Rest(rest) => rest.call(request).await,
            Self::Grpc(client) => update(client, request).await,
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
                return match answer.get(..13) {
                    Some(b"HTTP/1.1 200 ") => Ok(Answer::Done),
                    Some(b"HTTP/1.1 429 ") => Ok(Answer::Refused),
                    _ => Err(summary(answer)),
                };
            }
        }
    }

    fn write(&mut self, request: &Request<'_>) {
        let Self { addr, request: buffer, .. } = self;
        let Request { organization, credential: Credential { token, .. }, name } = request;
        buffer.clear();
        let written = if self.call == Call::Get {
            write!(
                buffer,
                "GET /v1/organizations/{organization} HTTP/1.1\r\nHost: {addr}\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            )
        } else {
            // The name has always 29 bytes, and the body therefore 40.
            write!(
                buffer,
                "PUT /v1/organizations/{organization} HTTP/1.1\r\nHost: {addr}\r\n\
                 Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: 40\r\n\r\n{{\"name\":\"Organization {name:016x}\"}}"
            )
        };
        written.unwrap();
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
    let value = head.rsplit(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
    });
    let digits = value.expect("every answer has a Content-Length");
    digits.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// An answer in one line: its status line and its body.
fn summary(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    format!("{status}: {}", text.lines().last().unwrap_or_default())
}

async fn update(
    client: &mut OrganizationServiceClient<Channel>,
    request: &Request<'_>,
) -> Result<Answer, String> {
    let organization = Organization {
        id: request.organization as i64,
        name: Some(format!("Organization {:016x}", request.name)),
        ..Organization::default()
    };
    let mut message = tonic::Request::new(UpdateOrganizationRequest {
        organization: Some(organization),
        ..UpdateOrganizationRequest::default()
    });
    message.metadata_mut().insert("authorization", request.credential.metadata.clone());
    match client.update(message).await {
        Ok(_) => Ok(Answer::Done),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(Answer::Refused),
        Err(status) => Err(status.to_string()),
    }
}
