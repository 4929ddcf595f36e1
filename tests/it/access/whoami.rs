//! Who the caller is: the same answer over REST, gRPC and the command line, and the same refusals.

use orgd::proto::v1::{self, WhoAmIRequest};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::harness::{
    Answer, Command, Request, Service, USER, assert_documented_headers, authorized, ending_soon,
    on_both_databases, on_both_databases_with, orgd, orgd_with,
};

const PATH: &str = "/v1/whoami";
/// Nothing is remembered of credentials.
const FORGETFUL: [(&str, &str); 1] = [("ORGD_AUTH_CACHE_TTL", "0s")];

fn ask(service: &Service, method: &str, secret: &str) -> Request {
    service.request(method, PATH).bearer(secret)
}

async fn rest(service: &Service, secret: &str) -> Answer {
    let answer = ask(service, "GET", secret).send().await;
    assert_documented_headers(&answer);
    answer
}

async fn grpc(service: &Service, secret: &str) -> Result<v1::Caller, Status> {
    let answer = service.grpc().who_am_i(authorized(secret, WhoAmIRequest {})).await;
    answer.map(tonic::Response::into_inner)
}

fn command(service: &Service, secret: &str, words: &str) -> Command {
    let server = format!("http://{}", service.grpc_addr());
    orgd_with(&[("ORGD_SERVER", server.as_str()), ("ORGD_TOKEN", secret)], words)
}

/// A message as REST answers it.
fn as_rest(caller: &v1::Caller) -> Value {
    let mut value = json!({
        "subject": caller.subject,
        "role": caller.role().as_str_name().trim_start_matches("ROLE_").to_lowercase(),
        "credentialId": caller.credential_id,
        "writableFields":
            caller.writable_fields.iter().map(|name| name.replace("_i", "I")).collect::<Vec<_>>(),
    });
    if let Some(id) = caller.organization_id {
        value["organizationId"] = id.into();
    }
    if let Some(end) = &caller.expire_time {
        value["expireTime"] = end.to_string().into();
    }
    value
}

#[tokio::test]
async fn every_kind_of_caller_is_told_its_identity_through_every_api() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        for (role, grant, organization, writable) in [
            ("user", "user --organization 90", json!(90), json!(["name"])),
            ("support", "support", Value::Null, json!(["name", "subscriptionId"])),
            (
                "administrator",
                "administrator --expires-in 1h",
                Value::Null,
                json!(["name", "subscriptionId", "handshake"]),
            ),
        ] {
            for kind in ["bearer", "api-key"] {
                let words = format!(
                    "credential issue --json --kind {kind} --subject {kind}-of-{role} --role {grant}"
                );
                let issued = orgd(service.database().url(), &words).json();
                let secret = issued["secret"].as_str().unwrap();
                let told = rest(&service, secret).await;
                assert_eq!(told.status(), 200, "{}", told.text());
                assert_eq!(told.header("content-type"), Some("application/json"));
                assert_eq!(told.header("cache-control"), Some("private, no-cache"));
                let caller = told.json();
                assert_eq!(caller["subject"], format!("{kind}-of-{role}"));
                assert_eq!(caller["role"], role);
                assert_eq!(caller["credentialId"], issued["id"]);
                assert_eq!(caller["writableFields"], writable);
                assert_eq!(caller["organizationId"], organization);
                assert_eq!(caller["expireTime"], issued["expiresAt"]);
                // What has no value is left out.
                let members = caller.as_object().unwrap();
                assert!(members.values().all(|value| !value.is_null()), "{caller}");

                assert_eq!(rest(&gateway, secret).await.json(), caller);
                assert_eq!(as_rest(&grpc(&service, secret).await.unwrap()), caller);
                let printed = command(&service, secret, "whoami --json").json();
                for member in ["subject", "role", "credentialId"] {
                    assert_eq!(printed[member], caller[member], "{printed}");
                }
                assert_eq!(printed["organizationId"], organization);
                assert_eq!(printed["expireTime"], issued["expiresAt"]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_command_shows_people_a_table() {
    on_both_databases(async |service| {
        let shown = command(&service, USER, "whoami");
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let lines: Vec<Vec<&str>> =
            shown.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        let headings = "SUBJECT ROLE ORGANIZATION CREDENTIAL EXPIRES MAY UPDATE";
        assert_eq!(lines[0].join(" "), headings);
        let id = grpc(&service, USER).await.unwrap().credential_id;
        assert_eq!(lines[1], ["test-user", "user", "90", id.split_at(12).0, "-", "name"]);
        let away = command(&service, USER, "whoami --server http://127.0.0.1:1");
        assert_eq!((away.code, away.stdout.as_str()), (6, ""), "{}", away.stderr);
    })
    .await;
}

#[tokio::test]
async fn an_ended_credential_is_refused_through_every_api() {
    on_both_databases_with(&FORGETFUL, async |service| {
        let gateway = Service::start_gateway(&service).await;
        let url = service.database().url();
        let is_known = async |secret: &str| {
            for instance in [&service, &gateway] {
                assert_eq!(rest(instance, secret).await.status(), 200);
            }
            assert!(grpc(&service, secret).await.is_ok());
        };
        let words = "--role user --organization 90";
        let (expired, end, ()) = ending_soon(url, words, is_known).await;
        while orgd::store::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let issued = orgd(url, &format!("credential issue --json {words} --kind api-key")).json();
        let (id, revoked) = (issued["id"].as_str().unwrap(), issued["secret"].as_str().unwrap());
        is_known(revoked).await;
        assert_eq!(orgd(url, &format!("credential revoke {id}")).code, 0);
        for secret in [expired.as_str(), revoked, "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55", "x"] {
            for instance in [&service, &gateway] {
                let refused = rest(instance, secret).await;
                assert_eq!(
                    (refused.status(), refused.reason().as_str()),
                    (401, "CREDENTIAL_INVALID")
                );
                let challenge = "Bearer realm=\"organizations\", error=\"invalid_token\"";
                assert_eq!(refused.header("www-authenticate"), Some(challenge));
            }
            assert_eq!(grpc(&service, secret).await.unwrap_err().code(), Code::Unauthenticated);
            let refused = command(&service, secret, "whoami");
            assert_eq!((refused.code, refused.stdout.as_str()), (4, ""), "{}", refused.stderr);
            assert!(refused.stderr.contains("CREDENTIAL_INVALID"), "{}", refused.stderr);
        }
        let missing = service.request("GET", PATH).send().await;
        assert_eq!((missing.status(), missing.reason().as_str()), (401, "CREDENTIAL_MISSING"));
    })
    .await;
}

#[tokio::test]
async fn the_whoami_route_has_the_methods_of_a_read_only_resource() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        let lines = |answer: &Answer| {
            let lines = answer.header_lines().into_iter();
            let own = ["date", "x-request-id", "ratelimit"];
            lines.filter(|(name, _)| !own.contains(&name.as_str())).collect::<Vec<_>>()
        };
        for instance in [&service, &gateway] {
            let (get, head) =
                (rest(instance, USER).await, ask(instance, "HEAD", USER).send().await);
            assert_eq!((head.status(), head.text()), (200, ""));
            assert_eq!(lines(&head), lines(&get));
            let options = instance.request("OPTIONS", PATH).send().await;
            assert_eq!((options.status(), options.text()), (204, ""));
            for (header, value) in [
                ("allow", "GET, HEAD, OPTIONS"),
                ("access-control-max-age", "7200"),
                ("access-control-allow-origin", "*"),
            ] {
                assert_eq!(options.header(header), Some(value));
            }
            assert_documented_headers(&options);
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                let refused = ask(instance, method, USER).body("{}").send().await;
                assert_eq!(
                    (refused.status(), refused.reason().as_str()),
                    (405, "METHOD_NOT_ALLOWED")
                );
                assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
                assert_documented_headers(&refused);
            }
            for path in ["/v1/whoami/", "/v1/WhoAmI", "/v1/whoami/x", "/whoami"] {
                assert_eq!(instance.request("GET", path).send().await.reason(), "ROUTE_NOT_FOUND");
            }
        }
        let document = service.request("GET", "/openapi.json").send().await.json();
        let example = &document["components"]["schemas"]["Caller"]["example"];
        let (example, told) = (example.as_object().unwrap(), rest(&service, USER).await.json());
        let told = told.as_object().unwrap();
        assert!(told.keys().all(|member| example.contains_key(member)), "{example:?}");
    })
    .await;
}

/// The calls that a service has answered, by RPC and code.
async fn calls(service: &Service, rpc: &str, code: &str) -> u64 {
    let metrics = service.get_ops("/metrics").await;
    let labels = [
        "rpc_server_call_duration_seconds_count".to_owned(),
        format!("OrganizationService/{rpc}\""),
        format!("_status_code=\"{code}\""),
    ];
    let is_asked = |line: &&str| labels.iter().all(|label| line.contains(label.as_str()));
    let line = metrics.text().lines().find(is_asked).map(str::to_owned);
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_gateway_authenticates_the_requests_that_it_refuses_itself() {
    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    for instance in [&service, &gateway] {
        let before = calls(&service, "WhoAmI", "OK").await;
        assert_eq!(instance.put(90, USER, "[]").send().await.status(), 400);
        let post = instance.request("POST", "/v1/organizations").body("[]");
        let refused = post.bearer(USER).send().await;
        assert_eq!(refused.status(), 400);
        assert!(calls(&service, "WhoAmI", "OK").await >= before + 2);
        for code in ["OK", "INVALID_ARGUMENT"] {
            assert_eq!(calls(&service, "Update", code).await, 0, "{code}");
        }
    }
}
