//! Who may change and see which field: the matrix of the three roles.

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
    ADMINISTRATOR, FOREIGN, OWN, SUPPORT, Service, USER, authorized, on_both_databases,
};

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
                for field in ["name", "subscriptionId", "handshake"] {
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
