//! A caller of the service through either API. It accepts every answer, and none.

use std::{net::SocketAddr, time::Duration};

use orgd::proto::v1::{
    self, GetOrganizationRequest, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
};
use serde_json::{Value, json};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::harness::{ADMINISTRATOR, Answer, Request, Service, authorized};

/// Longer than a call's own deadline.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where a service listens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addresses {
    rest: SocketAddr,
    grpc: SocketAddr,
}

impl Addresses {
    pub fn of(service: &Service) -> Self {
        Self { rest: service.http_addr(), grpc: service.grpc_addr() }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Api {
    Rest,
    Grpc,
}

/// An update, by an administrator.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// The request's id, which the change log keeps.
    pub id: String,
    pub organization: i64,
    pub name: Option<String>,
    pub subscription_id: Option<String>,
    pub handshake: Option<String>,
    /// The version that the organization must have.
    pub version: Option<i64>,
}

/// What a caller knows after a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done; the organization's version and name then.
    Done(i64, String),
    /// Not done, as the organization had this other version.
    Mismatch(i64),
    /// Certainly not done; why.
    Refused(String),
    /// Done or not; what came instead of an answer.
    Unknown(String),
}

impl Outcome {
    /// In a word or two, to count them by.
    pub fn label(&self) -> &str {
        match self {
            Self::Done(..) => "done",
            Self::Mismatch(_) => "mismatch",
            Self::Refused(text) | Self::Unknown(text) => text,
        }
    }
}

/// Keeps its connection over gRPC, and has a new one over REST for each call.
#[derive(Default)]
pub struct Caller(Option<(SocketAddr, OrganizationServiceClient<Channel>)>);

impl Caller {
    pub async fn update(&mut self, addresses: Addresses, api: Api, write: &Write) -> Outcome {
        match api {
            Api::Rest => rest(put(addresses, write)).await,
            Api::Grpc => {
                let mut request = authorized(ADMINISTRATOR, message(write));
                request.metadata_mut().insert("x-request-id", write.id.parse().unwrap());
                grpc(self.client(addresses).update(request)).await
            }
        }
    }

    pub async fn get(&mut self, addresses: Addresses, api: Api, id: i64) -> Outcome {
        match api {
            Api::Rest => {
                let path = format!("/v1/organizations/{id}");
                let request = Request::new(addresses.rest, "GET", &path);
                rest(request.bearer(ADMINISTRATOR)).await
            }
            Api::Grpc => {
                let message = GetOrganizationRequest { id, ..Default::default() };
                grpc(self.client(addresses).get(authorized(ADMINISTRATOR, message))).await
            }
        }
    }

    fn client(&mut self, addresses: Addresses) -> &mut OrganizationServiceClient<Channel> {
        let kept = self.0.take().filter(|(addr, _)| *addr == addresses.grpc);
        let fresh = || {
            let endpoint = Endpoint::from_shared(format!("http://{}", addresses.grpc)).unwrap();
            (addresses.grpc, OrganizationServiceClient::new(endpoint.connect_lazy()))
        };
        &mut self.0.insert(kept.unwrap_or_else(fresh)).1
    }
}

fn put(addresses: Addresses, write: &Write) -> Request {
    let fields = [
        ("name", &write.name),
        ("subscriptionId", &write.subscription_id),
        ("handshake", &write.handshake),
    ];
    let fields =
        fields.into_iter().filter_map(|(name, value)| Some((name, json!(value.as_ref()?))));
    let body: serde_json::Map<String, Value> =
        fields.map(|(name, value)| (name.to_owned(), value)).collect();
    let path = format!("/v1/organizations/{}", write.organization);
    let request = Request::new(addresses.rest, "PUT", &path)
        .bearer(ADMINISTRATOR)
        .header("content-type", "application/json")
        .header("prefer", "return=representation")
        .header("x-request-id", &write.id)
        .body(Value::Object(body).to_string());
    match write.version {
        Some(version) => request.header("if-match", &format!("\"{version}\"")),
        None => request,
    }
}

fn message(write: &Write) -> UpdateOrganizationRequest {
    let organization = v1::Organization {
        id: write.organization,
        name: write.name.clone(),
        subscription_id: write.subscription_id.clone(),
        handshake: write.handshake.clone(),
        etag: write.version.map(|version| format!("\"{version}\"")).unwrap_or_default(),
        ..Default::default()
    };
    UpdateOrganizationRequest { organization: Some(organization), ..Default::default() }
}

async fn rest(request: Request) -> Outcome {
    let Ok(sent) = tokio::time::timeout(PATIENCE, request.try_send()).await else {
        return Outcome::Unknown("REST no answer".to_owned());
    };
    // Which of the ways in which a connection breaks is chance.
    let Ok(answer) = sent else { return Outcome::Unknown("REST broken".to_owned()) };
    let label = || format!("REST {} {}", answer.status(), answer.reason());
    match answer.status() {
        200 => done(&answer),
        412 => Outcome::Mismatch(version(answer.json()["metadata"]["etag"].as_str().unwrap())),
        400..500 => Outcome::Refused(label()),
        503 if answer.header("retry-after").is_none() => {
            panic!("without Retry-After: {}", answer.text())
        }
        _ => Outcome::Unknown(label()),
    }
}

fn done(answer: &Answer) -> Outcome {
    let organization = answer.json();
    let etag = organization["etag"].as_str().unwrap();
    Outcome::Done(version(etag), organization["name"].as_str().unwrap().to_owned())
}

async fn grpc(
    call: impl Future<Output = Result<tonic::Response<v1::Organization>, Status>>,
) -> Outcome {
    let Ok(answer) = tokio::time::timeout(PATIENCE, call).await else {
        return Outcome::Unknown("gRPC no answer".to_owned());
    };
    let status = match answer {
        Ok(organization) => {
            let organization = organization.into_inner();
            return Outcome::Done(version(&organization.etag), organization.name.unwrap());
        }
        Err(status) => status,
    };
    // What the service has not sent, the client has made up about its connection.
    let Some(info) = status.get_details_error_info() else {
        return Outcome::Unknown("gRPC broken".to_owned());
    };
    let label = format!("gRPC {:?} {}", status.code(), info.reason);
    match status.code() {
        Code::Aborted => Outcome::Mismatch(version(&info.metadata["etag"])),
        Code::Unavailable if status.get_details_retry_info().is_none() => {
            panic!("without RetryInfo: {status:?}")
        }
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown => {
            Outcome::Unknown(label)
        }
        _ => Outcome::Refused(label),
    }
}

fn version(etag: &str) -> i64 {
    etag.trim_matches('"').parse().unwrap()
}
