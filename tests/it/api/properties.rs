//! What holds for any input: no body and no mask makes the service fail or changes what was not
//! named, and updates of different fields lose nothing of each other.

use orgd::{
    domain::{Field, Organization as Stored},
    proto::v1::{Organization, UpdateOrganizationRequest},
};
use proptest::{
    prelude::{Just, Strategy, any, prop, prop_oneof},
    test_runner::{Config, RngSeed, TestRunner},
};
use prost_types::FieldMask;
use serde_json::{Map, Value};
use tonic::Code;

use crate::harness::{ADMINISTRATOR, OWN, Service, USER, authorized, on_both_databases};

const CASES: u32 = 150;

/// Values of a strategy, the same in each run.
fn values<S: Strategy>(strategy: S, count: u32) -> Vec<S::Value> {
    let config = Config { rng_seed: RngSeed::Fixed(7), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let value = |_| {
        let tree = strategy.new_tree(&mut runner).unwrap();
        proptest::strategy::ValueTree::current(&tree)
    };
    (0..count).map(value).collect()
}

/// Any JSON.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A body with some of the defined members, of any type, and others.
fn body() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        3 => Just("name".to_owned()),
        3 => Just("subscriptionId".to_owned()),
        1 => Just("subscription_id".to_owned()),
        3 => Just("handshake".to_owned()),
        1 => Just("id".to_owned()),
        1 => Just("etag".to_owned()),
        2 => ".{0,12}",
    ];
    let text = prop_oneof![2 => ".{0,40}".prop_map(Value::from), 1 => json()];
    prop::collection::btree_map(key, text, 0..5)
        .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

/// Checks that only the named fields have changed.
fn assert_untouched(before: &Stored, after: &Stored, named: impl Fn(&str) -> bool, case: &str) {
    let same = |field| before.value(field) == after.value(field);
    assert!(named("name") || same(Field::Name), "name: {case}");
    assert!(named("handshake") || same(Field::Handshake), "handshake: {case}");
    let same_subscription = same(Field::SubscriptionId);
    assert!(
        named("subscription_id") || named("subscriptionId") || same_subscription,
        "subscription: {case}"
    );
    let changed = before.values != after.values;
    let version = before.etag.version() + i64::from(changed);
    assert_eq!(after.etag.version(), version, "one version for a change, none for none: {case}");
}

#[tokio::test]
async fn no_body_fails_the_service_or_changes_what_it_does_not_name() {
    on_both_databases(async |service| {
        let texts = values(".{0,60}", CASES / 3);
        let bytes = values(prop::collection::vec(any::<u8>(), 0..60), CASES / 3);
        for body in texts.into_iter().map(String::into_bytes).chain(bytes) {
            let answer = service.put(OWN, ADMINISTRATOR, "").body(body.clone()).send().await;
            assert!(answer.status() == 400 || answer.status() == 200, "{body:?}: {answer:?}");
        }
        for body in values(prop_oneof![4 => body(), 1 => json()], CASES) {
            let before = service.database().organization(OWN).await;
            let answer = service.put(OWN, ADMINISTRATOR, &body.to_string()).send().await;
            assert!(answer.status() == 400 || answer.status() == 200, "{body}: {answer:?}");
            let after = service.database().organization(OWN).await;
            let named = |key: &str| answer.status() == 200 && body.get(key).is_some();
            assert_untouched(&before, &after, named, &body.to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn no_mask_fails_the_service_or_changes_what_it_does_not_name() {
    let path = || {
        prop_oneof![
            2 => Just("name".to_owned()),
            2 => Just("subscription_id".to_owned()),
            2 => Just("handshake".to_owned()),
            1 => Just("*".to_owned()),
            1 => Just("etag".to_owned()),
            1 => Just("subscriptionId".to_owned()),
            1 => ".{0,12}",
        ]
    };
    let value = || prop::option::of(prop_oneof![3 => "[a-z]{1,8}", 1 => ".{0,12}"]);
    let case = (prop::collection::vec(path(), 0..4), value(), value(), value());
    on_both_databases(async |service| {
        for (paths, name, subscription_id, handshake) in values(&case, CASES) {
            let before = service.database().organization(OWN).await;
            let organization = Organization {
                id: OWN,
                name,
                subscription_id,
                handshake,
                ..Organization::default()
            };
            let message = UpdateOrganizationRequest {
                organization: Some(organization.clone()),
                update_mask: Some(FieldMask { paths: paths.clone() }),
                ..UpdateOrganizationRequest::default()
            };
            let answer = service.grpc().update(authorized(ADMINISTRATOR, message)).await;
            let code = answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
            let case = format!("{paths:?} {organization:?}: {answer:?}");
            assert!(matches!(code, Code::Ok | Code::InvalidArgument), "{case}");
            let after = service.database().organization(OWN).await;
            let all = paths.is_empty() || paths.iter().any(|path| path == "*");
            let named =
                |field: &str| code == Code::Ok && (all || paths.iter().any(|one| one == field));
            assert_untouched(&before, &after, named, &case);
            if let Ok(answer) = answer {
                assert_eq!(answer.get_ref().etag, after.etag.to_string(), "{case}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn updates_of_different_fields_at_once_lose_nothing() {
    on_both_databases(async |service| {
        for round in 0..15 {
            let send = async |service: &Service, token: &str, field: &str| {
                let body = format!(r#"{{"{field}":"{field} {round}"}}"#);
                let answer = service.put(OWN, token, &body).send().await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
            };
            tokio::join!(
                send(&service, USER, "name"),
                send(&service, ADMINISTRATOR, "subscriptionId"),
                send(&service, ADMINISTRATOR, "handshake"),
                send(&service, USER, "name"),
            );
            let stored = service.database().organization(OWN).await;
            for field in Field::ALL {
                let expected = format!("{} {round}", field.member());
                assert_eq!(stored.value(field), Some(expected.as_str()));
            }
            assert_eq!(stored.etag.version(), 1 + 3 * (round + 1), "each change is one version");
        }
        let changes = service.database().changes(OWN).await;
        let versions: Vec<i64> = changes.iter().map(|change| change.version).collect();
        assert_eq!(versions, (1..=46).collect::<Vec<_>>(), "and each version one entry");
    })
    .await;
}
