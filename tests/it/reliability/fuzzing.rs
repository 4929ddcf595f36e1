//! The corpus of the fuzz targets (`fuzz/README.md`): every input, against what holds for any, and
//! through the APIs of a running service.

use std::{fs, panic::catch_unwind, path::Path};

use bytes::{Buf, BufMut};
use orgd::proto::v1::{
    ListOrganizationsRequest, Organization, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
    organization_service_server::SERVICE_NAME,
};
use prost_types::FieldMask;
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::StatusExt;

use crate::harness::{ADMINISTRATOR, Answer, OWN, Service, authorized, on_both_databases};

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// The corpus of a target: names and inputs.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let input = |path: std::path::PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    let inputs: Vec<_> = files.map(input).collect();
    assert!(inputs.len() >= 20, "{} has {} inputs", folder.display(), inputs.len());
    inputs
}

#[test]
fn every_input_of_the_corpus_passes_the_fuzz_targets() {
    for (name, target) in targets::TARGETS {
        let inputs = corpus(name);
        eprintln!("{name}: {} inputs", inputs.len());
        for (path, input) in inputs {
            assert!(catch_unwind(|| target(&input)).is_ok(), "{path}");
        }
    }
}

#[tokio::test]
async fn every_input_of_the_corpus_is_done_or_refused_by_both_apis() {
    on_both_databases(async |service| {
        // Not searched for our insides: a refusal repeats what a client called a field, and some inputs
        // have such words. The targets know the input, and search what is beside it.
        let mut client = OrganizationServiceClient::new(service.channel().0);
        for (path, body) in corpus("json_body") {
            let answer = service.put(OWN, ADMINISTRATOR, "").body(body).send().await;
            check_answer(&answer, &[200, 400], &path);
        }
        for (path, line) in corpus("authorization") {
            // What is no text or no header's value does not leave a client.
            let Ok(line) = String::from_utf8(line) else { continue };
            let lines: Vec<&str> = line.split('\n').collect();
            if lines.iter().any(|line| line.parse::<http::HeaderValue>().is_err()) {
                continue;
            }
            let put = service.put(OWN, "", "{}").without_header("authorization");
            let put = lines.iter().fold(put, |put, line| put.header("authorization", line));
            check_answer(&put.send().await, &[200, 400, 401], &path);
        }
        for (path, token) in corpus("page_token") {
            let page_token = String::from_utf8_lossy(&token).into_owned();
            let message = ListOrganizationsRequest { page_token, ..Default::default() };
            let listed = client.list(authorized(ADMINISTRATOR, message)).await;
            check_status(listed.err(), &path);
        }
        for (path, input) in corpus("update_mask") {
            let mask = input.get(1..).map(String::from_utf8_lossy).unwrap_or_default();
            let message = UpdateOrganizationRequest {
                organization: Some(Organization { id: OWN, ..Organization::default() }),
                update_mask: Some(FieldMask {
                    paths: mask.split(',').map(str::to_owned).collect(),
                }),
                ..UpdateOrganizationRequest::default()
            };
            let updated = client.update(authorized(ADMINISTRATOR, message)).await;
            check_status(updated.err(), &path);
        }
        for (path, message) in corpus("message") {
            for method in ["Update", "Create"] {
                check_status(call(&service, method, message.clone()).await.err(), &path);
            }
        }
        assert_eq!(service.get_ops("/readyz").await.status(), 200);
    })
    .await;
}

fn check_answer(answer: &Answer, statuses: &[u16], path: &str) {
    assert!(statuses.contains(&answer.status()), "{path}: {answer:?}");
    assert_eq!(answer.status() == 200, answer.reason().is_empty(), "{path}: {answer:?}");
}

fn check_status(refusal: Option<Status>, path: &str) {
    let Some(refusal) = refusal else { return };
    let codes = [Code::InvalidArgument, Code::NotFound, Code::Aborted];
    assert!(codes.contains(&refusal.code()), "{path}: {refusal:?}");
    assert!(refusal.get_details_error_info().is_some(), "{path}: {refusal:?}");
}

/// Calls a method with bytes for its message.
async fn call(service: &Service, method: &str, message: Vec<u8>) -> Result<(), Status> {
    let path = format!("/{SERVICE_NAME}/{method}").parse().unwrap();
    let mut client = tonic::client::Grpc::new(service.channel().0);
    client.ready().await.unwrap();
    client.unary(authorized(ADMINISTRATOR, message), path, Raw).await.map(|_| ())
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
