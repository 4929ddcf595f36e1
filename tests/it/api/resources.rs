//! The resource around the update: show, list, create, the change log, and requests sent again.

use serde_json::{Value, json};

use crate::harness::{
    ADMINISTRATOR, Answer, FOREIGN, OWN, Request, SUPPORT, Service, UNKNOWN, USER,
    assert_documented_headers, on_both_databases,
};

fn get(service: &Service, token: &str, path: &str) -> Request {
    service.request("GET", path).bearer(token)
}

fn post(service: &Service, token: &str, body: &Value) -> Request {
    service
        .request("POST", "/v1/organizations")
        .bearer(token)
        .header("content-type", "application/json")
        .body(body.to_string())
}

fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{}", answer.text());
    assert_documented_headers(answer);
}

#[tokio::test]
async fn an_organization_is_shown_with_what_its_reader_may_see() {
    on_both_databases(async |service| {
        let set = service.put(OWN, ADMINISTRATOR, r#"{"handshake":"h"}"#).send().await;
        assert_eq!(set.status(), 200);
        let path = "/v1/organizations/90?writableFields=true";
        for (token, writable, handshake) in [
            (USER, json!(["name"]), None),
            (SUPPORT, json!(["name", "subscriptionId"]), None),
            (ADMINISTRATOR, json!(["name", "subscriptionId", "handshake"]), Some("h")),
        ] {
            let answer = get(&service, token, path).send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.header("etag")), (200, Some("\"2\"")));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
            let shown = answer.json();
            assert_eq!((&shown["id"], &shown["subscriptionId"]), (&json!(90), &json!("free")));
            assert_eq!(shown.get("handshake").and_then(Value::as_str), handshake);
            assert_eq!(shown["writableFields"], writable);
        }
        let plain = get(&service, USER, "/v1/organizations/90").send().await.json();
        assert_eq!(plain.get("writableFields"), None, "on request only");
        for date in ["dateCreated", "dateModified"] {
            let format = &time::format_description::well_known::Rfc3339;
            time::OffsetDateTime::parse(plain[date].as_str().unwrap(), format).unwrap();
        }

        let head = service.request("HEAD", "/v1/organizations/90");
        let head = head.bearer(USER).send().await;
        assert_eq!((head.status(), head.header("etag"), head.text()), (200, Some("\"2\""), ""));

        for (tags, status) in [
            ("\"2\"", 304),
            ("W/\"2\"", 304),
            ("\"1\", \"2\"", 304),
            ("*", 304),
            ("\"1\"", 200),
            ("2", 200),
        ] {
            let answer = get(&service, USER, "/v1/organizations/90")
                .header("if-none-match", tags)
                .send()
                .await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.header("etag")), (status, Some("\"2\"")), "{tags}");
            assert_eq!(answer.text().is_empty(), status == 304);
        }

        let refused = get(&service, USER, "/v1/organizations/94").send().await;
        assert_refused(&refused, 403, "ORGANIZATION_FORBIDDEN");
        let refused = get(&service, USER, "/v1/organizations/77").send().await;
        assert_refused(&refused, 403, "ORGANIZATION_FORBIDDEN");
        let missing = get(&service, SUPPORT, "/v1/organizations/77").send().await;
        assert_refused(&missing, 404, "ORGANIZATION_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn lists_come_in_pages_that_follow_each_other() {
    on_both_databases(async |service| {
        for name in 0..5 {
            let created =
                post(&service, ADMINISTRATOR, &json!({"name": format!("{name}")})).send().await;
            assert_eq!(created.status(), 201, "{}", created.text());
        }
        let ids = async |token: &str, query: &str| -> (Vec<i64>, Option<String>) {
            let answer = get(&service, token, &format!("/v1/organizations{query}")).send().await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let page = answer.json();
            let found = page["organizations"].as_array().unwrap();
            let ids = found.iter().map(|one| one["id"].as_i64().unwrap()).collect();
            (ids, page.get("nextPageToken").map(|token| token.as_str().unwrap().to_owned()))
        };
        let (all, next) = ids(SUPPORT, "").await;
        assert_eq!((all, next), (vec![90, 94, 95, 96, 97, 98, 99], None));
        let mut seen = Vec::new();
        let mut query = "?pageSize=3".to_owned();
        loop {
            let (page, next) = ids(ADMINISTRATOR, &query).await;
            assert!(page.len() <= 3);
            seen.extend(page);
            let Some(token) = next else { break };
            query = format!("?pageSize=3&pageToken={token}");
        }
        assert_eq!(seen, [90, 94, 95, 96, 97, 98, 99]);
        assert_eq!(ids(ADMINISTRATOR, "?pageSize=2000").await.1, None, "more than 1000 is 1000");
        assert_eq!(ids(USER, "").await, (vec![OWN], None), "a user lists its own alone");
        let (_, token) = ids(ADMINISTRATOR, "?pageSize=1").await;
        assert_eq!(
            ids(USER, &format!("?pageToken={}", token.clone().unwrap())).await.0,
            Vec::<i64>::new()
        );

        for query in
            ["?pageSize=0", "?pageSize=-1", "?pageSize=+1", "?pageSize=x", "?pageSize=1&pageSize=1"]
        {
            let refused = get(&service, SUPPORT, &format!("/v1/organizations{query}")).send().await;
            assert_refused(&refused, 400, "PARAMETER_INVALID");
        }
        let other_list = token.unwrap();
        for (path, token) in [
            ("/v1/organizations", "x"),
            ("/v1/organizations", "%00"),
            ("/v1/organizations", "b3JnYW5pemF0aW9uczotMQ"),
            ("/v1/organizations/90/changes", &other_list),
        ] {
            let refused = get(&service, SUPPORT, &format!("{path}?pageToken={token}")).send().await;
            assert_refused(&refused, 400, "INVALID_INPUT");
            assert_eq!(refused.json()["errors"][0]["reason"], "PAGE_TOKEN_INVALID");
        }
    })
    .await;
}

#[tokio::test]
async fn administrators_create_organizations() {
    on_both_databases(async |service| {
        let body = json!({"name": "New", "subscriptionId": "s", "handshake": "h", "nope": 1});
        let created = post(&service, ADMINISTRATOR, &body).send().await;
        assert_documented_headers(&created);
        assert_eq!((created.status(), created.header("etag")), (201, Some("\"1\"")));
        assert_eq!(created.header("location"), Some("/v1/organizations/95"));
        let shown = get(&service, ADMINISTRATOR, "/v1/organizations/95").send().await;
        assert_eq!(shown.json(), created.json());
        assert_eq!(created.json()["handshake"], "h");
        let changes = service.database().changes(95).await;
        assert_eq!(
            (changes.len(), changes[0].version, changes[0].subject.as_str()),
            (1, 1, "test-administrator")
        );

        // The service chooses ids; one in the body is ignored as every key that is not updated.
        let chosen = post(&service, ADMINISTRATOR, &json!({"id": 7, "name": "Next"})).send().await;
        assert_eq!((chosen.status(), &chosen.json()["id"]), (201, &json!(96)));
        let strict = post(&service, ADMINISTRATOR, &json!({"id": 7, "name": "N"}));
        let strict = strict.header("prefer", "handling=strict").send().await;
        assert_refused(&strict, 400, "INVALID_INPUT");
        assert_eq!(strict.pointers(), ["#/id"]);

        for (body, pointer) in [
            (json!({}), "#/name"),
            (json!({"name": null}), "#/name"),
            (json!({"name": " "}), "#/name"),
        ] {
            let refused = post(&service, ADMINISTRATOR, &body).send().await;
            assert_refused(&refused, 400, "INVALID_INPUT");
            assert_eq!(refused.pointers(), [pointer], "{body}");
        }
        for token in [USER, SUPPORT] {
            let refused = post(&service, token, &json!({"name": ""})).send().await;
            assert_refused(&refused, 403, "CREATION_FORBIDDEN");
        }

        let dry = |body: &Value| {
            let request = service.request("POST", "/v1/organizations?validateOnly=true");
            request.bearer(ADMINISTRATOR).body(body.to_string())
        };
        let would_be = dry(&json!({"name": "Dry"})).send().await;
        assert_eq!((would_be.status(), &would_be.json()["id"]), (200, &json!(97)));
        assert_eq!(get(&service, SUPPORT, "/v1/organizations/97").send().await.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn the_change_log_tells_who_changed_what_and_keeps_no_handshake() {
    on_both_databases(async |service| {
        for (token, body) in [
            (USER, r#"{"name":"Second"}"#),
            (USER, r#"{"name":"Second"}"#),
            (ADMINISTRATOR, r#"{"subscriptionId":null,"handshake":"top secret"}"#),
            (ADMINISTRATOR, r#"{"handshake":"top secret"}"#),
            (SUPPORT, r#"{"name":"Third","subscriptionId":"pro"}"#),
        ] {
            let put = service.put(OWN, token, body).header("x-request-id", "log");
            assert_eq!(put.send().await.status(), 200);
        }
        let answer = get(&service, ADMINISTRATOR, "/v1/organizations/90/changes").send().await;
        assert!(!answer.text().contains("top secret"));
        let changes = answer.json()["changes"].clone();
        let summary: Vec<Value> = changes
            .as_array()
            .unwrap()
            .iter()
            .map(|change| {
                json!([change["version"], change["subject"], change["role"], change["fields"]])
            })
            .collect();
        let plain = |field: &str, old: Option<&str>, new: Option<&str>| {
            let mut change = json!({"field": field, "redacted": false});
            for (key, value) in [("oldValue", old), ("newValue", new)] {
                if let Some(value) = value {
                    change[key] = value.into();
                }
            }
            change
        };
        let handshake = json!({"field": "handshake", "redacted": true});
        assert_eq!(
            summary,
            [
                json!([
                    1,
                    "operator",
                    "administrator",
                    [
                        plain("name", None, Some("Organization 90")),
                        plain("subscriptionId", None, Some("free")),
                    ]
                ]),
                json!([
                    2,
                    "test-user",
                    "user",
                    [plain("name", Some("Organization 90"), Some("Second"))]
                ]),
                json!([
                    3,
                    "test-administrator",
                    "administrator",
                    [plain("subscriptionId", Some("free"), None), handshake]
                ]),
                json!([
                    4,
                    "test-support",
                    "support",
                    [
                        plain("name", Some("Second"), Some("Third")),
                        plain("subscriptionId", None, Some("pro")),
                    ]
                ]),
            ]
        );
        assert_eq!(changes[1]["requestId"], "log");
        assert_eq!(changes[1]["organizationId"], 90);

        let own =
            get(&service, USER, "/v1/organizations/90/changes?pageSize=2").send().await.json();
        assert_eq!(own["changes"].as_array().unwrap().len(), 2);
        let token = own["nextPageToken"].as_str().unwrap();
        let rest = get(&service, USER, &format!("/v1/organizations/90/changes?pageToken={token}"))
            .send()
            .await
            .json();
        assert_eq!(rest["changes"].as_array().unwrap().len(), 2);
        assert_eq!(
            rest["changes"][0]["fields"],
            json!([plain("subscriptionId", Some("free"), None)]),
            "no handshake for users"
        );
        assert_eq!(rest.get("nextPageToken"), None);

        for id in [FOREIGN, UNKNOWN] {
            let refused =
                get(&service, USER, &format!("/v1/organizations/{id}/changes")).send().await;
            assert_refused(&refused, 403, "ORGANIZATION_FORBIDDEN");
        }
        let missing = get(&service, SUPPORT, "/v1/organizations/77/changes").send().await;
        assert_refused(&missing, 404, "ORGANIZATION_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_request_sent_again_under_its_key_changes_nothing_more() {
    const KEY: &str = "0d8c5d1e-0d0b-4c9e-8f6e-2f5a9c1b7e44";
    on_both_databases(async |service| {
        let put = |token: &str, key: &str, body: &str| {
            let request = service.put(OWN, token, body).header("prefer", "return=representation");
            request.header("idempotency-key", key)
        };
        let first = put(USER, KEY, r#"{"name":"Once"}"#).header("if-match", "\"1\"").send().await;
        assert_eq!((first.status(), &first.json()["etag"]), (200, &json!("\"2\"")));
        let other = service.put(OWN, SUPPORT, r#"{"name":"Since"}"#).send().await;
        assert_eq!(other.status(), 200);
        for key in [KEY.to_owned(), format!("\"{KEY}\""), KEY.to_uppercase()] {
            let again =
                put(USER, &key, r#"{"name":"Once"}"#).header("if-match", "\"1\"").send().await;
            assert_eq!((again.status(), again.json()), (200, first.json()), "as the first time");
        }
        // The precondition guards the first time; it is no part of what was asked.
        for (name, value) in
            [("if-match", "\"1\", \"9\""), ("if-none-match", "\"9\""), ("if-match", "*")]
        {
            let again = put(USER, KEY, r#"{"name":"Once"}"#).header(name, value).send().await;
            assert_eq!((again.status(), again.json()), (200, first.json()), "{name}: {value}");
        }
        assert_eq!(service.database().name(OWN).await, "Since");
        assert_eq!(service.database().changes(OWN).await.len(), 3);

        for request in [put(USER, KEY, r#"{"name":"Twice"}"#), put(USER, KEY, "{}")] {
            assert_refused(&request.send().await, 422, "IDEMPOTENCY_KEY_REUSED");
        }
        for key in ["x", "", "0d8c5d1e0d0b4c9e8f6e2f5a9c1b7e44"] {
            let refused = put(USER, key, "{}").send().await;
            assert_refused(&refused, 400, "INVALID_INPUT");
            assert_eq!(refused.json()["errors"][0]["reason"], "IDEMPOTENCY_KEY_MALFORMED");
        }
        let twice = put(USER, KEY, "{}").header("idempotency-key", KEY).send().await;
        assert_refused(&twice, 400, "HEADER_REPEATED");
        // Another caller's key is another key.
        assert_eq!(put(SUPPORT, KEY, r#"{"name":"Mine"}"#).send().await.status(), 200);

        let create = |name: &str| {
            post(&service, ADMINISTRATOR, &json!({"name": name})).header("idempotency-key", KEY)
        };
        let created = create("New").send().await;
        let again = create("New").send().await;
        assert_eq!((created.status(), again.status()), (201, 201));
        assert_eq!(created.json(), again.json());
        assert_refused(&create("Other").send().await, 422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(get(&service, SUPPORT, "/v1/organizations/96").send().await.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn one_of_many_equal_requests_at_once_writes() {
    on_both_databases(async |service| {
        for round in 0..10 {
            let key = uuid::Uuid::new_v4().to_string();
            let body = json!({"name": format!("Round {round}")}).to_string();
            let send = || service.put(OWN, USER, &body).header("idempotency-key", &key).send();
            let answers = futures_util::future::join_all((0..8).map(|_| send())).await;
            for answer in answers {
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
            assert_eq!(service.database().changes(OWN).await.len(), round + 2);
        }
    })
    .await;
}
