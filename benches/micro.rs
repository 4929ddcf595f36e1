//! The steps of an update that take no I/O, each alone: JSON to patch, authenticate, policy, convert.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros, and a program that may end"
)]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use orgd::{
    app::credentials::{self, Grant},
    auth::{Authenticator, Secret},
    domain::{
        Etag, Field, Organization, OrganizationId, Patch, Principal, Role, Text, Update, policy,
    },
    gateway,
    grpc::convert,
    proto::v1,
    store::{Store, StoreOptions, now},
};
use orgd_shares::Holder;
use prost_types::FieldMask;

const BODY: &[u8] = br#"{"name": "Custom Name", "subscriptionId": "enterprise", "note": [1, 2]}"#;
const TOKEN: &str = "111d7a49-b4f7-43c8-8cbd-5b6a67f71066";

fn json_to_patch(criterion: &mut Criterion) {
    criterion.bench_function("json_to_patch", |bench| {
        bench.iter(|| -> Patch<Text> {
            let message = gateway::update_of_body(black_box(BODY), 90, false).unwrap();
            convert::update(message).unwrap().patch.parse().unwrap()
        });
    });
}

fn authenticate(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("orgd.db").display()).into();
    let authenticator = runtime.block_on(async {
        Store::migrate(&url).await.unwrap();
        let store = Store::connect(&url, StoreOptions::default()).await.unwrap();
        let grant = Grant {
            role: Role::Administrator,
            organization: None,
            subject: None,
            description: None,
            expires_in: None,
        };
        credentials::issue(&store, &Secret::parse(TOKEN).unwrap(), grant).await.unwrap();
        Authenticator::new(store, Duration::from_secs(3600))
    });
    let mut headers = HeaderMap::new();
    let line = format!("Bearer {TOKEN}");
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&line).unwrap());
    criterion.bench_function("authenticate", |bench| {
        bench.iter(|| {
            runtime
                .block_on(authenticator.authenticate(&Holder::Process, black_box(&headers)))
                .unwrap()
        });
    });
}

fn organization() -> Organization {
    Organization {
        id: OrganizationId::new(90).unwrap(),
        values: [
            (Field::Name, Some("Custom Name".to_owned())),
            (Field::SubscriptionId, Some("enterprise".to_owned())),
            (Field::Handshake, Some("secret".to_owned())),
        ]
        .into(),
        date_created: now(),
        date_modified: now(),
        etag: Etag::FIRST,
    }
}

fn policy(criterion: &mut Criterion) {
    let principal = Principal { role: Role::Support, ..Principal::operator() };
    let id = OrganizationId::new(90).unwrap();
    let patch = convert::update(message()).unwrap().patch;
    let organization = organization();
    criterion.bench_function("policy", |bench| {
        bench.iter(|| {
            policy::authorize_organization(black_box(&principal), id).unwrap();
            policy::authorize_fields(&principal, patch.fields()).unwrap();
            policy::readable(&principal, organization.clone())
        });
    });
}

fn message() -> v1::UpdateOrganizationRequest {
    v1::UpdateOrganizationRequest {
        organization: Some(v1::Organization {
            id: 90,
            name: Some("Custom Name".to_owned()),
            subscription_id: Some("enterprise".to_owned()),
            ..v1::Organization::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["name".to_owned(), "subscription_id".to_owned()],
        }),
        ..v1::UpdateOrganizationRequest::default()
    }
}

fn convert(criterion: &mut Criterion) {
    let (message, organization) = (message(), organization());
    criterion.bench_function("convert", |bench| {
        bench.iter(|| -> (Update<String>, v1::Organization) {
            let update = convert::update(black_box(&message).clone()).unwrap();
            (update, convert::organization(organization.clone()))
        });
    });
}

criterion_group!(benches, json_to_patch, authenticate, policy, convert);
criterion_main!(benches);
