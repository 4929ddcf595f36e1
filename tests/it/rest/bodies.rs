//! Every body that JSON can be and must not be (docs/API.md, "PUT /v1/organizations/{id}").

use crate::harness::{ADMINISTRATOR, OWN, assert_documented_headers, on_both_databases};

/// What a body does: the version that it leaves, or the reason and the pointers of its refusal.
type Expected = Result<i64, (&'static str, &'static [&'static str])>;

fn refused(reason: &'static str, pointers: &'static [&'static str]) -> Expected {
    Err((reason, pointers))
}

fn malformed() -> Expected {
    refused("BODY_MALFORMED", &[])
}

fn invalid(pointers: &'static [&'static str]) -> Expected {
    refused("INVALID_INPUT", pointers)
}

#[rustfmt::skip]
fn bodies() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let text = |body: &str| body.as_bytes().to_vec();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(256));
    let full = format!("{{\"name\":\"{}\"}}", "a".repeat(65_000));
    vec![
        ("nearly 64 KiB", text(&full), invalid(&["#/name"])),
        ("a name", text(r#"{"name":"N"}"#), Ok(2)),
        ("nothing", text("{}"), Ok(1)),
        ("white space around", text(" \r\n\t{ \"name\" : \"N\" } \n"), Ok(2)),
        ("null clears", text(r#"{"subscriptionId":null,"handshake":null}"#), Ok(2)),
        ("the proto's spelling", text(r#"{"subscription_id":"s"}"#), Ok(2)),
        ("an escaped key", text(r#"{"n\u0061me":"N"}"#), Ok(2)),
        ("an astral character", text(r#"{"name":"\ud83d\ude00"}"#), Ok(2)),
        ("an unknown key", text(r#"{"nope":{"a":[1,2.5,true,null]}}"#), Ok(1)),
        (
            "read-only keys",
            text(r#"{"dateCreated":"x","etag":"\"9\"","writableFields":[]}"#),
            Ok(1),
        ),
        ("its own id", text(r#"{"id":90,"name":"N"}"#), Ok(2)),
        ("another id", text(r#"{"id":91,"name":"N"}"#), invalid(&["#/id"])),
        ("an id as text", text(r#"{"id":"90"}"#), invalid(&["#/id"])),
        ("the same number", text(r#"{"id":90.0}"#), Ok(1)),
        ("an id with a fraction", text(r#"{"id":90.5}"#), invalid(&["#/id"])),
        ("a null id", text(r#"{"id":null}"#), invalid(&["#/id"])),
        ("a null name", text(r#"{"name":null}"#), invalid(&["#/name"])),
        ("an empty name", text(r#"{"name":""}"#), invalid(&["#/name"])),
        ("a blank name", text("{\"name\":\" \u{2003}\u{3000}\"}"), invalid(&["#/name"])),
        ("a control character", text(r#"{"name":"a\u0007"}"#), invalid(&["#/name"])),
        ("256 characters", text(&long), invalid(&["#/name"])),
        (
            "numbers",
            text(r#"{"name":1,"subscriptionId":2.5}"#),
            invalid(&["#/name", "#/subscriptionId"]),
        ),
        ("true", text(r#"{"name":true}"#), invalid(&["#/name"])),
        ("an array", text(r#"{"name":["N"]}"#), invalid(&["#/name"])),
        ("an object", text(r#"{"handshake":{}}"#), invalid(&["#/handshake"])),
        (
            "both spellings",
            text(r#"{"subscriptionId":"a","subscription_id":"a"}"#),
            invalid(&["#/subscription_id"]),
        ),
        ("a key twice", text(r#"{"name":"a","name":"a"}"#), refused("KEY_REPEATED", &[])),
        (
            "a key twice, once escaped",
            text(r#"{"name":"a","\u006eame":"a"}"#),
            refused("KEY_REPEATED", &[]),
        ),
        ("an unknown key twice", text(r#"{"x":1,"x":1}"#), refused("KEY_REPEATED", &[])),
        (
            "a key twice inside an unknown one",
            text(r#"{"x":{"y":1,"y":2}}"#),
            refused("KEY_REPEATED", &[]),
        ),
        ("an array at the top", text(r#"["N","s"]"#), refused("BODY_NOT_AN_OBJECT", &[])),
        ("a string at the top", text(r#""N""#), refused("BODY_NOT_AN_OBJECT", &[])),
        ("null at the top", text("null"), refused("BODY_NOT_AN_OBJECT", &[])),
        ("no body", text(""), refused("BODY_NOT_AN_OBJECT", &[])),
        ("a byte order mark", text("\u{feff}{}"), refused("BODY_NOT_AN_OBJECT", &[])),
        ("trailing bytes", text("{} x"), malformed()),
        ("two objects", text("{}{}"), malformed()),
        ("a trailing comma", text(r#"{"name":"N",}"#), malformed()),
        ("a comment", text("{/**/}"), malformed()),
        ("single quotes", text("{'name':'N'}"), malformed()),
        ("NaN", text(r#"{"x":NaN}"#), malformed()),
        ("a raw line break", text("{\"name\":\"a\nb\"}"), malformed()),
        ("invalid UTF-8", b"{\"name\":\"\xff\"}".to_vec(), malformed()),
        ("invalid UTF-8 in an ignored value", b"{\"x\":\"\xc3(\"}".to_vec(), malformed()),
        ("invalid UTF-8 in an ignored key", b"{\"\xff\":1}".to_vec(), malformed()),
        ("a lone surrogate", text(r#"{"name":"\ud800"}"#), malformed()),
        ("a lone surrogate in an ignored value", text(r#"{"x":["\udc00"]}"#), malformed()),
        ("a lone surrogate in an ignored key", text(r#"{"\ud800x":1}"#), malformed()),
        ("20,000 levels", deep.into_bytes(), malformed()),
        ("UTF-16", b"\xff\xfe{\0}\0".to_vec(), refused("BODY_NOT_AN_OBJECT", &[])),
    ]
}

#[tokio::test]
async fn every_body_is_read_by_the_rules_of_json() {
    on_both_databases(async |service| {
        for (name, body, expected) in bodies() {
            service.database().reset().await;
            let answer = service.put(OWN, ADMINISTRATOR, "").body(body).send().await;
            assert_documented_headers(&answer);
            let version = service.database().organization(OWN).await.etag.version();
            match expected {
                Ok(expected) => {
                    assert_eq!((answer.status(), version), (200, expected), "{name}: {answer:?}");
                }
                Err((reason, pointers)) => {
                    assert_eq!((answer.status(), version), (400, 1), "{name}: {answer:?}");
                    assert_eq!(answer.reason(), reason, "{name}: {}", answer.text());
                    assert_eq!(answer.pointers(), pointers, "{name}: {}", answer.text());
                }
            }
        }
    })
    .await;
}
