//! Deadlines and limits of the gRPC API that tonic does not keep by itself (docs/API.md, "gRPC" and "Deadlines").

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{OWN, Service, USER, authorized, on_both_databases, on_both_databases_with};

fn rename(name: &str) -> UpdateOrganizationRequest {
    let name = Some(name.to_owned());
    UpdateOrganizationRequest {
        organization: Some(Organization { id: OWN, name, ..Organization::default() }),
        ..UpdateOrganizationRequest::default()
    }
}

#[tokio::test]
async fn a_passed_deadline_is_reported_through_both_apis_and_nothing_is_written_after() {
    on_both_databases_with(&[("ORGD_REQUEST_DEADLINE", "60s")], async |service| {
        let holder = service.database().hold().await;
        let put = service.put(OWN, USER, r#"{"name":"Late"}"#).header("grpc-timeout", "300m");
        let answer = put.send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (504, "DEADLINE_EXCEEDED"));

        let status = raw_update(&service, "application/grpc", Some("300m"), &rename("Late")).await;
        assert_eq!(status.grpc_code(), Some(Code::DeadlineExceeded));

        let gateway = Service::start_gateway(&service).await;
        let put = gateway.put(OWN, USER, r#"{"name":"Late"}"#).header("grpc-timeout", "300m");
        let answer = put.send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (504, "DEADLINE_EXCEEDED"));

        // Without a deadline, the database's own limit is shorter than the request's.
        let answer = service.put(OWN, USER, r#"{"name":"Locked"}"#).send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (503, "STORE_UNAVAILABLE"));
        assert_eq!(answer.header("retry-after"), Some("1"));

        // A caller's deadline may be shorter than the database's limit, until which its statement
        // may still be applied; never after.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        holder.rollback().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(service.database().organization(OWN).await.etag.version(), 1, "no late write");
        assert_eq!(service.put(OWN, USER, r#"{"name":"Now"}"#).send().await.status(), 200);
    })
    .await;
}

/// An answer of the gRPC listener, as it came over HTTP/2.
struct Raw {
    head: http::response::Parts,
    trailers: Option<http::HeaderMap>,
}

impl Raw {
    fn grpc_code(&self) -> Option<Code> {
        let lines = self.trailers.iter().chain([&self.head.headers]);
        let code = lines.flat_map(|headers| headers.get_all("grpc-status")).next()?;
        Some(Code::from_bytes(code.as_bytes()))
    }

    fn reason(&self) -> String {
        let headers = self.trailers.as_ref().unwrap_or(&self.head.headers);
        let status = tonic::Status::from_header_map(&self.head.headers)
            .or_else(|| tonic::Status::from_header_map(headers));
        let details = status.unwrap().get_error_details();
        details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
    }
}

/// Sends an update as bytes, with the content type and the timeout that a test wants.
async fn raw_update(
    service: &Service,
    content_type: &str,
    timeout: Option<&str>,
    message: &UpdateOrganizationRequest,
) -> Raw {
    let message = prost::Message::encode_to_vec(message);
    raw_call(service, content_type, timeout, "Update", &message).await
}

async fn raw_call(
    service: &Service,
    content_type: &str,
    timeout: Option<&str>,
    method: &str,
    message: &[u8],
) -> Raw {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let path = if method.starts_with('/') {
        method.to_owned()
    } else {
        format!("/organization.v1.OrganizationService/{method}")
    };
    let uri = format!("http://{}{path}", service.grpc_addr());
    let mut request = http::Request::post(uri)
        .header("content-type", content_type)
        .header("te", "trailers")
        .header("authorization", format!("Bearer {USER}"))
        .header("x-request-id", "raw");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let stream = TcpStream::connect(service.grpc_addr()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let exchange = async {
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        Raw { head, trailers }
    };
    tokio::select! {
        raw = exchange => raw,
        _ = connection => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn errors_of_tonic_are_replaced_by_documented_ones() {
    on_both_databases(async |service| {
        let fine =
            raw_update(&service, "application/grpc+proto", Some("99999999S"), &rename("N")).await;
        assert_eq!(fine.grpc_code(), Some(Code::Ok));
        assert_eq!(fine.head.headers["x-request-id"], "raw");

        for content_type in
            ["application/json", "text/plain", "application/grpc-web", "application/grpcx"]
        {
            let refused = raw_update(&service, content_type, None, &rename("N")).await;
            assert_eq!(refused.head.status, 415, "{content_type}");
            assert_eq!(refused.grpc_code(), None, "{content_type}");
        }
        for timeout in ["1s", "0S", "123456789S", "-1S", "1.5S", "", "S"] {
            let refused =
                raw_update(&service, "application/grpc", Some(timeout), &rename("N")).await;
            assert_eq!(refused.grpc_code(), Some(Code::InvalidArgument), "{timeout}");
            assert_eq!(refused.reason(), "DEADLINE_MALFORMED", "{timeout}");
        }
        let unknown = raw_call(&service, "application/grpc", None, "/no.Service/Call", b"").await;
        assert_eq!(unknown.grpc_code(), Some(Code::Unimplemented));
        assert_eq!(unknown.reason(), "NOT_IMPLEMENTED");
        let large = vec![0; 70_000];
        for (method, message, code, reason) in [
            ("Update", &b"\xff\xff\xff"[..], Code::InvalidArgument, "MESSAGE_MALFORMED"),
            ("Update", b"\x0a\x03\x12\x01\xff", Code::InvalidArgument, "MESSAGE_MALFORMED"),
            ("Update", &large, Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            ("Delete", b"", Code::Unimplemented, "NOT_IMPLEMENTED"),
        ] {
            let refused = raw_call(&service, "application/grpc", None, method, message).await;
            assert_eq!((refused.grpc_code(), refused.reason().as_str()), (Some(code), reason));
            let text = format!("{:?}{:?}", refused.head.headers, refused.trailers).to_lowercase();
            for internal in ["prost", "protobuf", "decode error", "wire type", "utf-8", "decoding"]
            {
                assert!(!text.contains(internal), "{text}");
            }
            assert_eq!(refused.head.headers["x-request-id"], "raw", "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_messages_are_refused_naming_the_field() {
    on_both_databases(async |service| {
        let with_id = |id: i64| UpdateOrganizationRequest {
            organization: Some(Organization { id, ..Organization::default() }),
            ..UpdateOrganizationRequest::default()
        };
        for (message, field, reason) in [
            (UpdateOrganizationRequest::default(), "organization", "FIELD_REQUIRED"),
            (with_id(0), "organization.id", "FIELD_OUT_OF_RANGE"),
            (with_id(-1), "organization.id", "FIELD_OUT_OF_RANGE"),
            (with_id(i64::MAX), "organization.id", "FIELD_OUT_OF_RANGE"),
        ] {
            let refused = service.grpc().update(authorized(USER, message)).await.unwrap_err();
            let details = refused.get_error_details();
            let violation = details.bad_request().unwrap().field_violations[0].clone();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert_eq!((violation.field.as_str(), violation.reason.as_str()), (field, reason));
        }

        // Thousands of bad paths make a short status: clients drop one over 8 KiB.
        let paths: Vec<String> = (0..5_000).map(|path| format!("{path:08}")).collect();
        let astral = vec!["\u{10ffff}".repeat(64); 20];
        for paths in [paths, astral] {
            let mask = UpdateOrganizationRequest {
                update_mask: Some(prost_types::FieldMask { paths }),
                ..with_id(OWN)
            };
            let refused = service.grpc().update(authorized(USER, mask)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            // Base64 makes four bytes of three, and percent-encoding three of one.
            let wire = refused.details().len() * 4 / 3 + refused.message().len() * 3;
            assert!(wire < 6 * 1024, "{wire}");
            assert_eq!(refused.get_error_details().error_info().unwrap().reason, "INVALID_INPUT");
        }
    })
    .await;
}
