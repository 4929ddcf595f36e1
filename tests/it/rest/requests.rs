//! The REST API's own rules: paths, methods, media types, headers, query (docs/API.md, "REST").

use crate::harness::{
    ADMINISTRATOR, FOREIGN, OWN, Request, SUPPORT, Service, UNKNOWN, USER,
    assert_documented_headers, on_both_databases,
};

#[tokio::test]
async fn paths_methods_and_media_types_must_match_exactly() {
    on_both_databases(async |service| {
        let put = |path: &str| {
            service
                .request("PUT", path)
                .bearer(ADMINISTRATOR)
                .header("content-type", "application/json")
                .body("{}")
        };
        let typed = |line: &str| put("/v1/organizations/90").without_header("content-type").header("content-type", line);
        let method = |method: &str| {
            service.request(method, "/v1/organizations/90").bearer(ADMINISTRATOR)
        };
        #[rustfmt::skip]
        let cases: Vec<(&str, Request, u16, &str)> = vec![
            ("percent-encoded digits", put("/v1/organizations/%39%30"), 200, ""),
            ("a query", put("/v1/organizations/90?x=1&access_token=y"), 200, ""),
            ("a plus", put("/v1/organizations/+90"), 400, "ID_MALFORMED"),
            ("zeros", put("/v1/organizations/0090"), 400, "ID_MALFORMED"),
            ("zero", put("/v1/organizations/0"), 400, "ID_MALFORMED"),
            ("a minus", put("/v1/organizations/-1"), 400, "ID_MALFORMED"),
            ("a fraction", put("/v1/organizations/90.0"), 400, "ID_MALFORMED"),
            ("letters", put("/v1/organizations/abc"), 400, "ID_MALFORMED"),
            ("other digits", put("/v1/organizations/%D9%A9%D9%A0"), 400, "ID_MALFORMED"),
            ("2^53", put("/v1/organizations/9007199254740992"), 400, "ID_MALFORMED"),
            ("a long number", put("/v1/organizations/99999999999999999999999999"), 400, "ID_MALFORMED"),
            ("digits encoded twice", put("/v1/organizations/%2539%2530"), 400, "ID_MALFORMED"),
            ("not UTF-8", put("/v1/organizations/%FF"), 400, "ID_MALFORMED"),
            ("not UTF-8 and no credential", put("/v1/organizations/%FF").without_header("authorization"), 401, "CREDENTIAL_MISSING"),
            ("a long key and a long body", put("/v1/organizations/90").header("idempotency-key", &"k".repeat(9_000)).body(long_name()), 400, "INVALID_INPUT"),
            ("a long tag and a long body", put("/v1/organizations/90").header("if-match", &format!("\"{}\"", "t".repeat(9_000))).body(long_name()), 400, "INVALID_INPUT"),
            ("an encoded slash", put("/v1/organizations/9%2F0"), 400, "ID_MALFORMED"),
            ("2^53-1", put("/v1/organizations/9007199254740991"), 404, "ORGANIZATION_NOT_FOUND"),
            ("a trailing slash", put("/v1/organizations/90/"), 404, "ROUTE_NOT_FOUND"),
            ("another case", put("/V1/organizations/90"), 404, "ROUTE_NOT_FOUND"),
            ("another segment", put("/v1/organizations/90/name"), 404, "ROUTE_NOT_FOUND"),
            ("a doubled slash", put("/v1//organizations/90"), 404, "ROUTE_NOT_FOUND"),
            ("DELETE", method("DELETE"), 405, "METHOD_NOT_ALLOWED"),
            ("PATCH", method("PATCH"), 405, "METHOD_NOT_ALLOWED"),
            ("an unknown method", method("BREW"), 405, "METHOD_NOT_ALLOWED"),
            ("POST with an override", method("POST").header("x-http-method-override", "PUT"), 405, "METHOD_NOT_ALLOWED"),
            ("no Content-Type", put("/v1/organizations/90").without_header("content-type"), 200, ""),
            ("parameters", typed("Application/JSON; charset=latin1; x=y"), 200, ""),
            ("merge patch", typed("application/merge-patch+json"), 200, ""),
            ("a form", typed("application/x-www-form-urlencoded"), 415, "MEDIA_TYPE_UNSUPPORTED"),
            ("text", typed("text/plain"), 415, "MEDIA_TYPE_UNSUPPORTED"),
            ("nearly JSON", typed("application/jsonx"), 415, "MEDIA_TYPE_UNSUPPORTED"),
            ("two types", typed("application/json").header("content-type", "application/json"), 415, "MEDIA_TYPE_UNSUPPORTED"),
            ("identity", put("/v1/organizations/90").header("content-encoding", "identity"), 200, ""),
            ("gzip", put("/v1/organizations/90").header("content-encoding", "gzip"), 415, "MEDIA_TYPE_UNSUPPORTED"),
            ("a range", put("/v1/organizations/90").header("content-range", "bytes 0-1/2"), 400, "CONTENT_RANGE_UNSUPPORTED"),
            ("a malformed deadline", put("/v1/organizations/90").header("grpc-timeout", "1s"), 400, "DEADLINE_MALFORMED"),
            ("a deadline of zero", put("/v1/organizations/90").header("grpc-timeout", "0S"), 400, "DEADLINE_MALFORMED"),
            ("two deadlines", put("/v1/organizations/90").header("grpc-timeout", "1S").header("grpc-timeout", "1S"), 400, "DEADLINE_MALFORMED"),
            ("a deadline", put("/v1/organizations/90").header("grpc-timeout", "2S"), 200, ""),
            ("a bad flag", put("/v1/organizations/90?validateOnly=yes"), 400, "PARAMETER_INVALID"),
            ("a flag twice", put("/v1/organizations/90?validateOnly=true&validateOnly=true"), 400, "PARAMETER_INVALID"),
            ("no Host", put("/v1/organizations/90").without_header("host"), 400, "HOST_MISSING"),
            ("two Hosts", put("/v1/organizations/90").header("host", "x"), 400, "HOST_MISSING"),
        ];
        for (name, request, status, reason) in cases {
            let answer = request.send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{name}: {}", answer.text());
            if status == 405 {
                assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, OPTIONS"), "{name}");
            }
            if status == 415 {
                let accepted = answer.header("accept").or(answer.header("accept-encoding"));
                assert!(accepted.is_some(), "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn options_is_answered_on_every_path_without_a_credential() {
    on_both_databases(async |service| {
        for (path, allow) in [
            ("/v1/organizations/90", "GET, HEAD, PUT, OPTIONS"),
            ("/v1/organizations/abc", "GET, HEAD, PUT, OPTIONS"),
            ("/v1/organizations", "GET, HEAD, POST, OPTIONS"),
            ("/nothing/here", "OPTIONS"),
        ] {
            let answer = service.request("OPTIONS", path).send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.text()), (204, ""), "{path}");
            assert_eq!(answer.header("allow"), Some(allow), "{path}");
            assert_eq!(answer.header("access-control-max-age"), Some("7200"), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn credentials_are_read_from_the_authorization_header_alone_as_documented() {
    on_both_databases(async |service| {
        let issue = "credential issue --role user --organization 90 --kind api-key --json";
        let issued = crate::harness::orgd(service.database().url(), issue).json();
        let key = issued["secret"].as_str().unwrap();
        assert!(key.starts_with("orgd_"));
        let put = || service.put(OWN, "", "{}").without_header("authorization");
        let with = |line: &str| put().header("authorization", line);
        let wrong_sum = format!("{}{}", key.split_at(key.len() - 1).0, if key.ends_with('0') { '1' } else { '0' });
        #[rustfmt::skip]
        let cases: Vec<(&str, Request, u16, &str)> = vec![
            ("a bearer token", with(&format!("Bearer {USER}")), 200, ""),
            ("another case of the scheme", with(&format!("bEARER {USER}")), 200, ""),
            ("two blanks", with(&format!("Bearer  {USER}")), 200, ""),
            ("a key as a bearer", with(&format!("Bearer {key}")), 200, ""),
            ("a key of its scheme", with(&format!("apikey {key}")), 200, ""),
            ("a bare key", with(key), 200, ""),
            ("a bare token", with(USER), 401, "CREDENTIAL_INVALID"),
            ("a token as a key", with(&format!("ApiKey {USER}")), 401, "CREDENTIAL_INVALID"),
            ("upper case", with(&format!("Bearer {}", USER.to_uppercase())), 401, "CREDENTIAL_INVALID"),
            ("a wrong checksum", with(&wrong_sum), 401, "CREDENTIAL_INVALID"),
            ("another scheme", with(&format!("Basic {USER}")), 401, "CREDENTIAL_MISSING"),
            ("another scheme's parameters", with("Digest username=\"u\", uri=\"/\""), 401, "CREDENTIAL_MISSING"),
            ("another scheme, not ASCII", with("Basic \u{e4}"), 401, "CREDENTIAL_MISSING"),
            ("another scheme's key", with(&format!("Token {key}")), 401, "CREDENTIAL_MISSING"),
            ("a scheme and a blank", with("Negotiate  x"), 401, "CREDENTIAL_MISSING"),
            ("a quoted token", with(&format!("Bearer \"{USER}\"")), 401, "CREDENTIAL_INVALID"),
            ("two tokens", with(&format!("Bearer {USER}, Bearer {USER}")), 401, "CREDENTIAL_INVALID"),
            ("not ASCII", with("Bearer \u{e4}"), 401, "CREDENTIAL_INVALID"),
            ("no credential", put(), 401, "CREDENTIAL_MISSING"),
            ("a blank one", with(""), 401, "CREDENTIAL_MISSING"),
            ("a scheme alone", with("Bearer"), 401, "CREDENTIAL_MISSING"),
            ("two lines", with(&format!("Bearer {USER}")).bearer(USER), 400, "INVALID_INPUT"),
            ("gRPC's header through a proxy", put().header("grpc-metadata-authorization", &format!("Bearer {USER}")), 401, "CREDENTIAL_MISSING"),
            ("a role of one's own", with(&format!("Bearer {USER}")).header("x-user-role", "administrator"), 200, ""),
            ("in the query", service.request("PUT", &format!("/v1/organizations/90?access_token={USER}")).body("{}"), 401, "CREDENTIAL_MISSING"),
            ("in a cookie", put().header("cookie", &format!("authorization=Bearer {USER}")), 401, "CREDENTIAL_MISSING"),
        ];
        for (name, request, status, reason) in cases {
            let answer = request.send().await;
            assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{name}: {}", answer.text());
            assert!(!answer.text().contains(USER) && !answer.text().contains(key), "{name}");
            // An error is told of a token alone (RFC 6750 §3.1).
            let challenge = "Bearer realm=\"organizations\"";
            let invalid = format!("{challenge}, error=\"invalid_token\"");
            let expected = match reason {
                "CREDENTIAL_MISSING" => Some(challenge),
                "CREDENTIAL_INVALID" => Some(invalid.as_str()),
                _ => None,
            };
            assert_eq!(answer.header("www-authenticate"), expected, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_order_of_checks_is_the_documented_one() {
    on_both_databases(async |service| {
        let anonymous = |path: &str| {
            service.request("PUT", path).header("content-type", "text/plain").body("[")
        };
        let user = |path: &str, body: &str| {
            service.request("PUT", path).bearer(USER).body(body.to_owned())
        };
        let cases = [
            ("route before credential", anonymous("/v2/organizations/90"), 404, "ROUTE_NOT_FOUND"),
            (
                "method before credential",
                service.request("DELETE", "/v1/organizations/90"),
                405,
                "METHOD_NOT_ALLOWED",
            ),
            ("credential before id", anonymous("/v1/organizations/abc"), 401, "CREDENTIAL_MISSING"),
            (
                "credential before media type",
                anonymous("/v1/organizations/90"),
                401,
                "CREDENTIAL_MISSING",
            ),
            (
                "one credential before body",
                anonymous("/v1/organizations/90")
                    .header("authorization", "a")
                    .header("authorization", "b"),
                400,
                "INVALID_INPUT",
            ),
            ("id before body", user("/v1/organizations/abc", "["), 400, "ID_MALFORMED"),
            ("body before rights", user("/v1/organizations/94", "["), 400, "BODY_NOT_AN_OBJECT"),
            (
                "rights before values",
                user("/v1/organizations/94", r#"{"name":""}"#),
                403,
                "ORGANIZATION_FORBIDDEN",
            ),
            (
                "shape before values",
                user("/v1/organizations/90", r#"{"name":"","subscriptionId":1}"#),
                400,
                "INVALID_INPUT",
            ),
        ];
        for (name, request, status, reason) in cases {
            let answer = request.send().await;
            assert_eq!(
                (answer.status(), answer.reason().as_str()),
                (status, reason),
                "{name}: {}",
                answer.text()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn preferences_and_request_ids_are_followed() {
    on_both_databases(async |service| {
        let body = r#"{"name":"N","nope":1,"etag":"x","a/b":2}"#;
        let lenient = service.put(OWN, USER, body).send().await;
        assert_eq!((lenient.status(), lenient.header("preference-applied")), (200, None));
        let strict = service.put(OWN, USER, body).header("prefer", "handling=strict").send().await;
        assert_eq!((strict.status(), strict.reason().as_str()), (400, "INVALID_INPUT"));
        assert_eq!(strict.pointers(), ["#/nope", "#/etag", "#/a~1b"]);

        let prefer = "respond-async, Return=\"representation\"; x=y, handling=strict";
        let whole = service.put(OWN, USER, r#"{"name":"W"}"#).header("prefer", prefer).send().await;
        assert_eq!(
            whole.header("preference-applied"),
            Some("handling=strict, return=representation")
        );
        assert_eq!(whole.header("etag"), None);
        let resource = whole.json();
        assert_eq!((&resource["name"], &resource["etag"]), (&"W".into(), &"\"3\"".into()));
        assert_eq!(resource.get("handshake"), None);

        for (sent, kept) in
            [("a.B_c-9", true), ("", false), ("a b", false), (&"x".repeat(65), false)]
        {
            let answer = service.put(OWN, USER, "[").header("x-request-id", sent).send().await;
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert_eq!(id == sent, kept, "{sent}: {id}");
            assert_eq!(answer.json()["requestId"], id);
            if !kept {
                assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn preconditions_follow_rfc_9110() {
    on_both_databases(async |service| {
        #[rustfmt::skip]
        let cases: &[(&[(&str, &str)], i64, u16, &str)] = &[
            (&[("if-match", "\"1\"")], OWN, 200, ""),
            (&[("if-match", "*")], OWN, 200, ""),
            (&[("if-match", "\"x,\", \"1\" ,W/\"2\"")], OWN, 200, ""),
            (&[("if-match", "\"7\""), ("if-match", "\"1\"")], OWN, 200, ""),
            (&[("if-match", "\"1\", 2")], OWN, 200, ""),
            (&[("if-match", "\"2\"")], OWN, 412, "ETAG_MISMATCH"),
            (&[("if-match", "\"2\", \"3\"")], OWN, 412, "ETAG_MISMATCH"),
            (&[("if-match", "W/\"1\"")], OWN, 412, "ETAG_WEAK"),
            (&[("if-match", "W/\"7\"")], OWN, 412, "ETAG_WEAK"),
            (&[("if-match", "\"7\", W/\"1\"")], OWN, 412, "ETAG_WEAK"),
            (&[("if-match", "\"7\", \"8\""), ("if-match", "W/\"1\"")], OWN, 412, "ETAG_WEAK"),
            (&[("if-match", "1")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", ",")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "\"1")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "'1'")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "w/\"1\"")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "\"7\", 1")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-match", "\u{e4}")], OWN, 412, "ETAG_MALFORMED"),
            (&[("if-none-match", "*")], OWN, 412, "ETAG_EXCLUDED"),
            (&[("if-none-match", "\"1\"")], OWN, 412, "ETAG_EXCLUDED"),
            (&[("if-none-match", "W/\"1\"")], OWN, 412, "ETAG_EXCLUDED"),
            (&[("if-none-match", "\"2\"")], OWN, 200, ""),
            (&[("if-match", "\"1\""), ("if-none-match", "\"1\"")], OWN, 412, "ETAG_EXCLUDED"),
            (&[("if-match", "W/\"1\""), ("if-none-match", "\"2\"")], OWN, 412, "ETAG_WEAK"),
            (&[("if-match", "*")], UNKNOWN, 404, "ORGANIZATION_NOT_FOUND"),
            (&[("if-match", "\"1\"")], UNKNOWN, 404, "ORGANIZATION_NOT_FOUND"),
            (&[("if-match", "W/\"1\"")], UNKNOWN, 404, "ORGANIZATION_NOT_FOUND"),
            (&[("if-none-match", "*")], UNKNOWN, 404, "ORGANIZATION_NOT_FOUND"),
            (&[("if-match", "\"2\", \"3\"")], UNKNOWN, 404, "ORGANIZATION_NOT_FOUND"),
        ];
        for (lines, id, status, reason) in cases {
            service.database().reset().await;
            let mut request = service.put(*id, SUPPORT, r#"{"name":"N"}"#);
            for (name, value) in *lines {
                request = request.header(name, value);
            }
            let answer = request.send().await;
            assert_eq!(answer.status(), *status, "{lines:?}: {}", answer.text());
            assert_eq!(answer.reason(), *reason, "{lines:?}");
            if *status == 412 {
                let is_told = answer.text().contains("changed since you read it");
                assert_eq!(is_told, *reason == "ETAG_MISMATCH", "{lines:?}: {}", answer.text());
                assert_eq!(answer.json()["metadata"]["etag"], "\"1\"", "{lines:?}");
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_writes_nothing() {
    on_both_databases(async |service| {
        let dry = |id: i64, token: &str, body: &str| dry_put(&service, id, token, body);
        let good = dry(OWN, USER, r#"{"name":"Dry"}"#)
            .header("prefer", "return=representation")
            .send()
            .await;
        assert_eq!(good.status(), 200);
        assert_eq!((&good.json()["name"], &good.json()["etag"]), (&"Dry".into(), &"\"1\"".into()));
        assert_eq!(dry(OWN, USER, r#"{"name":"Dry"}"#).send().await.text(), "{\"id\": 90}");
        let stale = dry(OWN, USER, r#"{"name":"Dry"}"#).header("if-match", "\"7\"");
        for (request, status) in [
            (dry(OWN, USER, r#"{"name":""}"#), 400),
            (dry(OWN, USER, r#"{"handshake":"x"}"#), 403),
            (dry(FOREIGN, USER, "{}"), 403),
            (dry(UNKNOWN, SUPPORT, "{}"), 404),
            (stale, 412),
        ] {
            let answer = request.send().await;
            assert_eq!(answer.status(), status, "{}", answer.text());
        }
        assert_eq!(service.database().name(OWN).await, "Organization 90");
        assert_eq!(service.database().changes(OWN).await.len(), 1);
    })
    .await;
}

fn dry_put(service: &Service, id: i64, token: &str, body: &str) -> Request {
    service
        .request("PUT", &format!("/v1/organizations/{id}?validateOnly=true"))
        .bearer(token)
        .body(body.to_owned())
}

fn long_name() -> String {
    format!(r#"{{"name":"{}"}}"#, "n".repeat(60_000))
}
