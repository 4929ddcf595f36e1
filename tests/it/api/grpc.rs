//! The gRPC API, called by a client of another language and by the generated one.

use orgd::domain::Field;
use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{ADMINISTRATOR, OWN, SUPPORT, USER, authorized, on_both_databases, python};

#[tokio::test]
async fn a_python_client_updates_by_mask_through_reflection() {
    on_both_databases(async |service| {
        let addr = service.grpc_addr();
        let services = python("list", addr, "", "");
        for name in [
            "organization.v1.OrganizationService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            assert!(services.as_array().unwrap().contains(&name.into()), "{services}");
        }

        let message = r#"{"organization": {"id": "90", "name": "From Python", "handshake": "no"},
            "updateMask": "name,subscriptionId"}"#;
        let answer = python("Update", addr, SUPPORT, message);
        assert_eq!(answer["name"], "From Python");
        assert_eq!(answer.get("subscriptionId"), None, "masked and unset: cleared");
        assert_eq!(answer["etag"], "\"2\"");
        let stored = service.database().organization(OWN).await;
        assert_eq!(
            (stored.value(Field::SubscriptionId), stored.value(Field::Handshake)),
            (None, None)
        );

        let refused = python("Update", addr, USER, message);
        assert_eq!(refused["code"], "PERMISSION_DENIED");
        assert_eq!(refused["reason"], "FIELD_FORBIDDEN");
        let refused = python("Update", addr, "", message);
        assert_eq!(refused["code"], "UNAUTHENTICATED");
    })
    .await;
}

#[tokio::test]
async fn reflection_version_1_knows_the_service_with_its_options() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    on_both_databases(async |service| {
        let file_with = async |symbol: &str| {
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::FileContainingSymbol(symbol.to_owned())),
            };
            let mut answers = ServerReflectionClient::new(service.channel())
                .server_reflection_info(tokio_stream(request))
                .await
                .unwrap()
                .into_inner();
            let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::FileDescriptorResponse(files) = answer else {
                panic!("{symbol}: {answer:?}")
            };
            files.file_descriptor_proto.concat()
        };
        // Of a status's details, which no message of ours names.
        for detail in ["Status", "ErrorInfo", "BadRequest", "RetryInfo"] {
            assert!(!file_with(&format!("google.rpc.{detail}")).await.is_empty(), "{detail}");
        }
        let file = file_with("organization.v1.Organization").await;
        // Field 50001 of the options, as a key of the wire format: the rights came along.
        let key = [0x8a, 0xb5, 0x18];
        assert!(file.windows(3).any(|bytes| bytes == key), "custom options are kept");
    })
    .await;
}

fn tokio_stream<T: Send + 'static>(
    item: T,
) -> impl futures_core::Stream<Item = T> + Send + 'static {
    futures_util::stream::once(async { item })
}

#[tokio::test]
async fn masks_and_etags_follow_aip_134_and_154() {
    on_both_databases(async |service| {
        let update = |organization: Organization, paths: &[&str]| UpdateOrganizationRequest {
            organization: Some(Organization { id: OWN, ..organization }),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..UpdateOrganizationRequest::default()
        };
        let named =
            |name: &str| Organization { name: Some(name.to_owned()), ..Organization::default() };
        let call = async |message| service.grpc().update(authorized(ADMINISTRATOR, message)).await;

        // Without paths: all that is set. With paths: those alone.
        assert_eq!(call(update(named("All set"), &[])).await.unwrap().get_ref().etag, "\"2\"");
        let unmasked = call(update(named("Not masked"), &["etag"])).await.unwrap().into_inner();
        assert_eq!((unmasked.name.as_deref(), unmasked.etag.as_str()), (Some("All set"), "\"2\""));

        let stale = Organization { etag: "\"1\"".to_owned(), ..named("Stale") };
        let refused = call(update(stale, &[])).await.unwrap_err();
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((refused.code(), info.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        assert_eq!(info.metadata["etag"], "\"2\"");

        for (paths, reason) in [
            (vec!["nope"], "MASK_PATH_UNKNOWN"),
            (vec!["organization.name"], "MASK_PATH_UNKNOWN"),
            (vec!["*", "name"], "MASK_WILDCARD_NOT_ALONE"),
        ] {
            let refused = call(update(named("Refused"), &paths)).await.unwrap_err();
            let details = refused.get_error_details();
            let violation = &details.bad_request().unwrap().field_violations[0];
            assert_eq!(
                (refused.code(), violation.reason.as_str()),
                (Code::InvalidArgument, reason)
            );
            assert_eq!(violation.field, "update_mask");
        }

        let dry = UpdateOrganizationRequest { validate_only: true, ..update(named("Dry"), &[]) };
        assert_eq!(call(dry).await.unwrap().get_ref().name.as_deref(), Some("Dry"));
        assert_eq!(service.database().name(OWN).await, "All set");
    })
    .await;
}
