//! Pages of long values are limited in bytes, and a large answer reports its size to the listener.

use std::time::Duration;

use orgd::{
    app::watch::Watches,
    auth::Authenticator,
    grpc::{CallLimits, OrganizationGrpc, PrincipalLimits},
    proto::v1::{
        ListChangesRequest, ListOrganizationsRequest,
        organization_service_client::OrganizationServiceClient,
    },
};
use orgd_listener::AnswerBytes;
use prost::Message;
use sea_orm::ConnectionTrait;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    ADMINISTRATOR, Database, OWN, SUPPORT, Service, USER, authorized, on_both_databases,
};

/// Bytes of values on a page at most.
const PAGE_BYTES: usize = 128 * 1024;
const COUNT: i64 = 250;

/// Stores organizations from 1001 on, and versions of the own one from 2 on, all with the longest values.
pub async fn add_long_ones(database: &Database) {
    let long = "\u{1f30d}".repeat(254);
    let date = format!("SELECT date_created FROM organizations WHERE id = {OWN}");
    let numbers = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers \
         WHERE number < {COUNT})"
    );
    let text = format!("'{long}' || CAST(number % 10 AS TEXT)");
    let connection = database.connect().await;
    for statement in [
        format!(
            "INSERT INTO organizations (id, name, subscription_id, handshake, handshake_version, \
             version, date_created, date_modified) {numbers} SELECT 1000 + number, {text}, {text}, \
             {text}, 0, 1, ({date}), ({date}) FROM numbers"
        ),
        format!(
            "INSERT INTO organization_changes (organization_id, version, date, subject, role, \
             request_id, name, subscription_id, handshake_version) {numbers} SELECT {OWN}, \
             1 + number, ({date}), 'test-user', 'user', 'seed', {text}, {text}, 0 FROM numbers"
        ),
    ] {
        connection.execute_unprepared(&statement).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// What the pages of a list over REST have, each asked for as large as may be.
async fn over_rest(service: &Service, token: &str, path: &str, key: [&str; 2]) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    let mut next = String::new();
    loop {
        let get = service.request("GET", &format!("{path}?pageSize=1000&pageToken={next}"));
        let answer = get.bearer(token).send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let page = answer.json();
        let entries = page[key[0]].as_array().unwrap();
        let number = |entry: &serde_json::Value| {
            // A version is a number or the text of an etag.
            entry[key[1]].to_string().trim_matches(['"', '\\']).parse().unwrap()
        };
        pages.push(entries.iter().map(number).collect());
        let Some(token) = page["nextPageToken"].as_str() else { return pages };
        assert!(!entries.is_empty(), "a page has an entry");
        token.clone_into(&mut next);
    }
}

async fn organizations_over_grpc(service: &Service, token: &str) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    let mut request = ListOrganizationsRequest { page_size: 1000, ..Default::default() };
    loop {
        let mut client = service.grpc();
        let list = client.list(authorized(token, request.clone()));
        let page = list.await.unwrap().into_inner();
        pages.push(page.organizations.iter().map(|organization| organization.id).collect());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

async fn changes_over_grpc(service: &Service, token: &str) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    let mut request =
        ListChangesRequest { organization_id: OWN, page_size: 500, ..Default::default() };
    loop {
        let mut client = service.grpc();
        let list = client.list_changes(authorized(token, request.clone()));
        let page = list.await.unwrap().into_inner();
        pages.push(page.changes.iter().map(|change| change.version).collect());
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

/// Every key is on one page, in order, and every page but the last is as full as it may be.
fn assert_pages(pages: &[Vec<i64>], keys: impl Iterator<Item = i64>, entry_bytes: usize) {
    assert!(pages.iter().flatten().copied().eq(keys), "{pages:?}");
    let entries = PAGE_BYTES / entry_bytes;
    let (_, full) = pages.split_last().unwrap();
    assert!(full.len() > 1, "{pages:?}");
    for page in full {
        // The first has a few short ones.
        assert!((entries..=entries + 3).contains(&page.len()), "{} of {entries}", page.len());
    }
}

#[tokio::test]
async fn pages_of_long_values_end_with_their_bytes_and_their_tokens_lead_through_all() {
    on_both_databases(async |service| {
        add_long_ones(service.database()).await;
        let all = || [OWN, 94].into_iter().chain(1001..=1000 + COUNT);
        let text = 254 * 4 + 1;
        // A role that does not see the handshake cannot tell its length by that of a page.
        for (token, texts) in [(ADMINISTRATOR, 3), (SUPPORT, 2)] {
            let key = ["organizations", "id"];
            let pages = over_rest(&service, token, "/v1/organizations", key).await;
            assert_pages(&pages, all(), texts * text);
            assert_eq!(organizations_over_grpc(&service, token).await, pages);
        }
        let path = format!("/v1/organizations/{OWN}/changes");
        let versions = over_rest(&service, USER, &path, ["changes", "version"]).await;
        // Old and new values of two fields, who, and the request.
        let bytes = 4 * text + "test-user".len() + "seed".len();
        assert_pages(&versions, 1..=1 + COUNT, bytes);
        assert_eq!(changes_over_grpc(&service, USER).await, versions);
    })
    .await;
}

/// The gateway and the listener see an answer of the service within its process, as this test does.
#[tokio::test]
async fn a_large_answer_reports_its_size_to_the_listener() {
    let database = Database::sqlite();
    database.seed().await;
    let store = database.store().await;
    let limits = CallLimits {
        deadline: Duration::from_secs(5),
        message_bytes_max: 65_536,
        sources: None,
        principals: PrincipalLimits::default(),
        watches: Watches::new(store.clone(), 1, Duration::from_secs(4), CancellationToken::new()),
    };
    let authenticator = Authenticator::new(store.clone(), Duration::ZERO);
    let service = OrganizationGrpc::new(store, authenticator, limits);
    let mut client = OrganizationServiceClient::new(service);
    let list = authorized(SUPPORT, ListOrganizationsRequest::default());
    let listed = client.list(list).await.unwrap();
    let changes = ListChangesRequest { organization_id: OWN, ..Default::default() };
    let changes = client.list_changes(authorized(USER, changes)).await.unwrap();
    for (told, message_bytes) in [
        (listed.extensions().get(), listed.get_ref().encoded_len()),
        (changes.extensions().get(), changes.get_ref().encoded_len()),
    ] {
        assert!(message_bytes > 50);
        assert_eq!(told, Some(&AnswerBytes(message_bytes)));
    }
}
