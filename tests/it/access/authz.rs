//! Who may do what: the rights matrix as it is through both APIs, that no RPC or route is left out of it, and who
//! may change and see which field.

use std::collections::BTreeSet;

use expect_test::expect_file;
use orgd::{
    domain::{Field, Role, policy},
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{self, Organization, UpdateOrganizationRequest},
    },
};
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FieldMask;
use tonic::Code;

use crate::harness::{
    ADMINISTRATOR, FOREIGN, OWN, SUPPORT, Service, UNKNOWN, USER, authorized, on_both_databases,
    python,
};

const ROLES: [(&str, &str); 3] =
    [("user", USER), ("support", SUPPORT), ("administrator", ADMINISTRATOR)];
const ORGANIZATIONS: [(&str, i64); 3] = [("own", OWN), ("foreign", FOREIGN), ("unknown", UNKNOWN)];
const FIELDS: [&str; 3] = ["name", "subscriptionId", "handshake"];
/// A new value, the cleared field, and the stored value once more.
const CHANGES: [&str; 3] = ["set", "clear", "unchanged"];

const HEAD: &str = "\
# Who may do what

What every role gets for every change of every field, through both APIs: the answer of REST, and the
code of gRPC. This page is written by `tests/it/access/authz.rs` from what the service really answers, and the
test fails when the two differ; `UPDATE_EXPECT=1 cargo test --workspace --test it -- authz` writes it anew.

`domain/src/policy.rs` decides; nothing else does. A user has rights to one organization, support and
administrators to all, so for them *own* and *foreign* are alike. A user is refused the same way,
byte for byte, for a foreign organization and for one that does not exist. Clearing the name is refused
for its value (400), once the caller has the right to change it.

Only administrators find the handshake in answers and in the change log. Only administrators create
organizations. A user lists its own organization alone.

";

#[tokio::test]
async fn the_matrix_of_rights_is_the_documented_one() {
    on_both_databases(async |service| {
        let mut table = String::from(
            "| role | organization | field | change | REST | gRPC |\n|---|---|---|---|---|---|\n",
        );
        for (role, token) in ROLES {
            for (relation, id) in ORGANIZATIONS {
                for field in FIELDS {
                    for change in CHANGES {
                        service.database().reset().await;
                        let rest = rest(&service, token, id, field, change).await;
                        service.database().reset().await;
                        let grpc = grpc(&service, token, id, field, change).await;
                        table += &format!(
                            "| {role} | {relation} | `{field}` | {change} | {rest} | {grpc:?} |\n"
                        );
                    }
                }
            }
        }
        expect_file!["../../../docs/AUTHZ.md"].assert_eq(&format!("{HEAD}{table}"));
    })
    .await;
}

/// The value that a change gives a field, or none to clear it.
fn value(id: i64, field: &str, change: &str) -> Option<String> {
    match (change, field) {
        ("set", _) => Some("new".to_owned()),
        ("unchanged", "name") => Some(format!("Organization {id}")),
        ("unchanged", "subscriptionId") => Some("free".to_owned()),
        _ => None,
    }
}

async fn rest(service: &Service, token: &str, id: i64, field: &str, change: &str) -> u16 {
    let body = serde_json::json!({ field: value(id, field, change) });
    service.put(id, token, &body.to_string()).send().await.status()
}

async fn grpc(service: &Service, token: &str, id: i64, field: &str, change: &str) -> Code {
    let value = value(id, field, change);
    let mut organization = Organization { id, ..Organization::default() };
    let path = match field {
        "name" => {
            organization.name = value;
            "name"
        }
        "subscriptionId" => {
            organization.subscription_id = value;
            "subscription_id"
        }
        "handshake" => {
            organization.handshake = value;
            "handshake"
        }
        _ => unreachable!("{field}"),
    };
    let message = UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths: vec![path.to_owned()] }),
        ..UpdateOrganizationRequest::default()
    };
    let answer = service.grpc().update(authorized(token, message)).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// For every RPC: a request that is fine, and whom it is refused to for want of rights. A list has
/// nobody without rights; what a user may not see is left out of it.
const RPCS: [(&str, &str, Option<&str>); 7] = [
    ("Update", r#"{"organization": {"id": "94", "name": "N"}}"#, Some(USER)),
    ("Get", r#"{"id": "94"}"#, Some(USER)),
    ("List", "{}", None),
    ("Create", r#"{"organization": {"name": "N"}}"#, Some(SUPPORT)),
    ("ListChanges", r#"{"organizationId": "94"}"#, Some(USER)),
    ("Watch", r#"{"organizationIds": ["94"], "fromVersions": {"94": "0"}}"#, Some(USER)),
    ("WhoAmI", "{}", None),
];

#[tokio::test]
async fn every_rpc_refuses_the_unauthenticated_and_the_unauthorized() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("organization.v1.OrganizationService").unwrap();
    let methods: BTreeSet<_> = service.methods().map(|method| method.name().to_owned()).collect();
    let covered: BTreeSet<_> = RPCS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(methods, covered, "an RPC without a case here");

    on_both_databases(async |service| {
        for (method, message, unauthorized) in RPCS {
            for token in ["", "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55"] {
                let refused = python(method, service.grpc_addr(), token, message);
                assert_eq!(refused["code"], "UNAUTHENTICATED", "{method}: {refused}");
            }
            if let Some(token) = unauthorized {
                let refused = python(method, service.grpc_addr(), token, message);
                assert_eq!(refused["code"], "PERMISSION_DENIED", "{method}: {refused}");
            }
            let fine = python(method, service.grpc_addr(), ADMINISTRATOR, message);
            assert_eq!(fine.get("code"), None, "{method}: {fine}");
        }
        let listed = python("List", service.grpc_addr(), USER, "{}");
        assert_eq!(listed["organizations"].as_array().unwrap().len(), 1, "{listed}");
    })
    .await;
}

/// The same for every operation of the OpenAPI document: method, path, body, and whom it is refused
/// to.
const ROUTES: [(&str, &str, &str, &str, Option<&str>); 7] = [
    ("put", "/v1/organizations/{id}", "/v1/organizations/94", r#"{"name": "N"}"#, Some(USER)),
    ("get", "/v1/organizations/{id}", "/v1/organizations/94", "", Some(USER)),
    ("get", "/v1/organizations", "/v1/organizations", "", None),
    ("post", "/v1/organizations", "/v1/organizations", r#"{"name": "N"}"#, Some(SUPPORT)),
    ("get", "/v1/organizations/{id}/changes", "/v1/organizations/94/changes", "", Some(USER)),
    ("get", "/v1/organizations/{id}/events", "/v1/organizations/94/events", "", Some(USER)),
    ("get", "/v1/whoami", "/v1/whoami", "", None),
];

#[tokio::test]
async fn every_route_refuses_the_unauthenticated_and_the_unauthorized() {
    on_both_databases(async |service| {
        let document = service.request("GET", "/openapi.json").send().await.json();
        let mut documented = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                documented.insert((method.clone(), path.clone()));
            }
        }
        let covered = ROUTES.map(|(method, path, ..)| (method.to_owned(), path.to_owned()));
        assert_eq!(documented, BTreeSet::from(covered), "a route without a case here");

        for (method, _, path, body, unauthorized) in ROUTES {
            let send = async |token: Option<&str>| {
                let request = service.request(&method.to_uppercase(), path).body(body);
                let request = match token {
                    Some(token) => request.bearer(token),
                    None => request,
                };
                request.send().await.status()
            };
            assert_eq!(send(None).await, 401, "{method} {path}");
            let unknown = "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55";
            assert_eq!(send(Some(unknown)).await, 401, "{method} {path}");
            if let Some(token) = unauthorized {
                assert_eq!(send(Some(token)).await, 403, "{method} {path}");
            }
            // Events have no end, so they are asked for without.
            let method = if path.ends_with("/events") { "HEAD" } else { method };
            let request = service.request(&method.to_uppercase(), path).body(body);
            let answer = request.bearer(ADMINISTRATOR).send().await;
            assert!(answer.status() < 300, "{method} {path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_credential_does_not_write_whatever_was_checked_before() {
    use orgd::{
        app::organizations,
        domain::{Call, Change, Error, Field, Patch, Update},
    };
    use orgd_shares::Holder;

    on_both_databases(async |service| {
        let store = service.database().store().await;
        let secret = orgd::auth::Secret::parse(USER).unwrap();
        // As after authentication: the principal is known, and its rights are about to be checked.
        let principal =
            store.find_principal(&Holder::Process, &secret.digest()).await.unwrap().unwrap();
        assert!(store.revoke_credential(secret.digest()).await.unwrap());
        let call = Call {
            principal: principal.into(),
            request_id: "late".to_owned(),
            idempotency_key: None,
            validate_only: false,
        };
        let patch = Patch::from([(Field::Name, Change::Set("Late".to_owned()))]);
        let id = orgd::domain::OrganizationId::new(OWN).unwrap();
        let update = Update { id, patch, etag: None };
        let refused = organizations::update(&store, &call, update, None).await;
        assert!(matches!(refused, Err(Error::CredentialInvalid)), "{refused:?}");
        assert_eq!(service.database().organization(OWN).await.etag.version(), 1);
    })
    .await;
}

const TOKENS: [(Role, &str); 3] =
    [(Role::User, USER), (Role::Support, SUPPORT), (Role::Administrator, ADMINISTRATOR)];

/// What docs/API.md says, once more and by hand: the matrix that `policy` is held to.
fn may_write(role: Role, field: &str) -> bool {
    match field {
        "name" => true,
        "subscriptionId" => role != Role::User,
        "handshake" => role == Role::Administrator,
        _ => unreachable!("{field}"),
    }
}

#[tokio::test]
async fn each_role_changes_exactly_its_fields() {
    on_both_databases(async |service| {
        for (role, token) in TOKENS {
            for id in [OWN, FOREIGN] {
                for field in FIELDS {
                    check(&service, role, token, id, field).await;
                }
            }
        }
    })
    .await;
}

async fn check(service: &Service, role: Role, token: &str, id: i64, field: &str) {
    let before = service.database().organization(id).await;
    let value = format!("{field} by {}", role.as_str());
    let answer = service.put(id, token, &format!(r#"{{"{field}": "{value}"}}"#)).send().await;
    let after = service.database().organization(id).await;
    let stored = after.value(Field::named(field).unwrap());
    let case = format!("{field} of {id} by {}: {}", role.as_str(), answer.text());
    let may_reach = role != Role::User || id == OWN;
    if may_reach && may_write(role, field) {
        assert_eq!(answer.status(), 200, "{case}");
        assert_eq!(stored, Some(value.as_str()), "{case}");
        assert_eq!(after.etag.version(), before.etag.version() + 1, "{case}");
    } else {
        assert_eq!(answer.status(), 403, "{case}");
        assert_eq!(after, before, "{case}");
        let pointer = answer.json()["errors"][0]["pointer"].clone();
        let named = may_reach.then(|| format!("#/{field}"));
        assert_eq!(pointer.as_str(), named.as_deref(), "{case}");
    }
}

#[tokio::test]
async fn only_administrators_find_the_handshake_in_an_answer() {
    on_both_databases(async |service| {
        let set = service.put(OWN, ADMINISTRATOR, r#"{"handshake": "abc"}"#).send().await;
        assert_eq!(set.status(), 200);
        for (role, token) in TOKENS {
            let update = UpdateOrganizationRequest {
                organization: Some(Organization { id: OWN, ..Organization::default() }),
                ..UpdateOrganizationRequest::default()
            };
            let answer = service.grpc().update(authorized(token, update)).await.unwrap();
            let expected = (role == Role::Administrator).then(|| "abc".to_owned());
            let organization = answer.into_inner();
            assert_eq!(organization.handshake, expected, "{}", role.as_str());
            assert_eq!(organization.subscription_id.as_deref(), Some("free"));
            assert_eq!(organization.etag, "\"2\"");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wildcard_needs_the_right_to_every_field_and_all_forbidden_ones_are_named() {
    use tonic_types::StatusExt;

    on_both_databases(async |service| {
        let update = UpdateOrganizationRequest {
            organization: Some(Organization {
                id: OWN,
                name: Some("New".to_owned()),
                ..Organization::default()
            }),
            update_mask: Some(FieldMask { paths: vec!["*".to_owned()] }),
            ..UpdateOrganizationRequest::default()
        };
        let refused = service.grpc().update(authorized(USER, update.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let details = refused.get_error_details();
        let named = details.bad_request().unwrap().field_violations.iter();
        let named: Vec<_> = named.map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, ["organization.subscription_id", "organization.handshake"]);
        assert_eq!(details.error_info().unwrap().reason, "FIELD_FORBIDDEN");

        let replaced = service.grpc().update(authorized(ADMINISTRATOR, update)).await.unwrap();
        let replaced = replaced.into_inner();
        assert_eq!((replaced.name.as_deref(), replaced.subscription_id), (Some("New"), None));
    })
    .await;
}

#[test]
fn the_protos_field_options_say_what_the_policy_decides() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let rights = pool.get_extension_by_name("organization.v1.rights").unwrap();
    let organization = pool.get_message_by_name("organization.v1.Organization").unwrap();
    let names: Vec<_> = organization.fields().map(|field| field.name().to_owned()).collect();
    for field in Field::ALL {
        assert!(names.iter().any(|name| name == field.path()), "{field:?} is in the proto");
    }
    for descriptor in organization.fields() {
        let options = descriptor.options();
        assert!(options.has_extension(&rights), "{} declares rights", descriptor.name());
        let declared = options.get_extension(&rights);
        let declared = declared.as_message().unwrap();
        let field = Field::ALL.into_iter().find(|field| field.path() == descriptor.name());
        for role in Role::ALL {
            // Fields that no update names are read by all and written by none.
            let may = |access| field.map(|field| policy::may_access(role, access, field));
            let may_write = may(policy::Access::Write).unwrap_or(false);
            let may_read = may(policy::Access::Read).unwrap_or(true);
            let case = format!("{} of {}", role.as_str(), descriptor.name());
            assert_eq!(names_role(declared, "write", role), may_write, "write: {case}");
            assert_eq!(names_role(declared, "read", role), may_read, "read: {case}");
        }
    }
}

fn names_role(rights: &DynamicMessage, list: &str, role: Role) -> bool {
    let roles = rights.get_field_by_name(list).unwrap();
    let number = match role {
        Role::User => v1::Role::User,
        Role::Support => v1::Role::Support,
        Role::Administrator => v1::Role::Administrator,
    };
    let number = i32::from(number);
    roles.as_list().unwrap().iter().any(|value| value.as_enum_number() == Some(number))
}
