//! The page at `/docs` and pages of other origins, in a real Chromium (`tests/browser`).

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use orgd::domain::Field;

use crate::harness::{
    Answer, DOCUMENTED_HEADERS, OWN, Service, USER, assert_documented_headers, on_both_databases,
    proxies::own_address,
};

const POLICY: &str = "Content-Security-Policy";

/// What Chromium says of any answer that is a refusal.
const REFUSAL_NOTED: &str =
    "Failed to load resource: the server responded with a status of 403 (Forbidden)";

/// What a script of `tests/browser` prints.
fn run(script: &str, arguments: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = root.join("target/browser/node_modules");
    assert!(
        packages.exists(),
        "the tests need playwright-core: run `make test`, which installs it"
    );
    let script = root.join("tests/browser").join(script);
    let output = Command::new("node").arg(script).args(arguments).output();
    let output = output.expect("the tests need Node.js: run `make test`, which installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_person_tries_the_api_on_the_docs_page() {
    on_both_databases(async |service| {
        let url = format!("http://{}", service.http_addr());
        let seen = run("docs.mjs", &[&url, USER]);

        let paths = document(&service).await["paths"].as_object().unwrap().clone();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        let mut operations: Vec<String> = operations.collect();
        let mut listed: Vec<String> = serde_json::from_value(seen["listed"].clone()).unwrap();
        operations.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, operations);

        // All but the stream, for whose end the page would wait for ever.
        let ids = paths.values().flat_map(|item| item.as_object().unwrap().values());
        let ids = ids.map(|operation| operation["operationId"].as_str().unwrap());
        let mut sendable: Vec<_> = ids.filter(|id| *id != "watchOrganization").collect();
        let mut seen_sendable: Vec<&str> =
            seen["sendable"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        sendable.sort_unstable();
        seen_sendable.sort_unstable();
        assert_eq!(seen_sendable, sendable);

        let example: Value = serde_json::from_str(seen["example"].as_str().unwrap()).unwrap();
        assert_eq!(example, json!({"name": "Custom Name"}));
        // Of each status one that a service has answered, and no `"detail": "string"`.
        let refusals: Vec<String> = serde_json::from_value(seen["refusals"].clone()).unwrap();
        assert_eq!(refusals.len(), 8, "{refusals:?}");
        for refusal in refusals {
            let refusal: Value = serde_json::from_str(&refusal).unwrap();
            assert!(refusal["detail"].as_str().unwrap().ends_with('.'), "{refusal}");
        }
        assert_eq!(seen["stored"]["status"], "200");
        assert_eq!(shown(&seen["stored"]), json!({"id": OWN}));
        assert_eq!(seen["refused"]["status"], "403");
        assert_eq!(shown(&seen["refused"])["reason"], "FIELD_FORBIDDEN");
        let stored = service.database().organization(OWN).await;
        assert_eq!(stored.value(Field::Name), Some("Typed Name"));
        assert_eq!(stored.value(Field::SubscriptionId), Some("free"));

        assert_eq!(seen["errorsUntilStored"], json!([]));
        assert_eq!(seen["errors"], json!([REFUSAL_NOTED]));
        assert_requests(&seen["requests"], &url);
    })
    .await;
}

/// The body that the page shows of an answer.
fn shown(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

/// That a page asked for something, and for nothing elsewhere.
fn assert_requests(requests: &Value, url: &str) {
    let requests = requests.as_array().unwrap();
    assert!(requests.iter().any(|request| *request == format!("{url}/openapi.json")));
    for request in requests {
        let is_here = request.as_str().unwrap().starts_with(&format!("{url}/"));
        assert!(is_here, "{request} is not of {url}");
    }
}

// Over SQLite alone: which database it is cannot be seen.
#[tokio::test]
async fn the_docs_page_is_readable_in_light_and_dark_narrow_and_wide() {
    let service = Service::over_sqlite(&[]).await;
    let url = format!("http://{}", service.http_addr());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser/screenshots");
    fs::create_dir_all(&folder).unwrap();
    let seen = run("docs.mjs", &[&url, USER, folder.to_str().unwrap()]);
    let looks = seen.as_array().unwrap();
    assert_eq!(looks.len(), 4);
    for look in looks {
        let (scheme, width) = (look["colorScheme"].as_str().unwrap(), &look["width"]);
        assert_eq!(look["isDark"], scheme == "dark", "{scheme} {width}");
        assert_eq!(look["sideways"], 0, "{scheme} {width}");
        assert_eq!(look["errors"], json!([REFUSAL_NOTED]), "{scheme} {width}");
        assert_requests(&look["requests"], &url);
        for picture in ["start", "token", "update", "refusal"] {
            let name = format!("docs-{scheme}-{width}-{picture}.png");
            assert!(fs::metadata(folder.join(&name)).unwrap().len() > 0, "{name}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_does_the_documented_put_and_reads_refusals() {
    on_both_databases(async |service| {
        let url = format!("http://{}", service.http_addr());
        let arguments = [url.as_str(), &OWN.to_string(), USER];
        let seen = run("other_origin.mjs", &arguments);
        assert_eq!(seen["stored"]["status"], 200);
        assert_eq!(seen["stored"]["body"], json!({"id": OWN}));
        for (answer, status, reason) in
            [("forbidden", 403, "FIELD_FORBIDDEN"), ("unknown", 401, "CREDENTIAL_INVALID")]
        {
            let answer = &seen[answer];
            assert_eq!(answer["status"], status);
            assert_eq!(answer["contentType"], "application/problem+json");
            assert_eq!(answer["body"]["reason"], reason);
            // The documented headers do not expose it: it is in the body for this.
            assert_eq!(answer["requestId"], Value::Null);
            assert!(answer["body"]["requestId"].is_string());
        }
        // One for all three, as its answer may be kept.
        let target = format!("{url}/v1/organizations/{OWN}");
        assert_eq!(seen["preflights"], json!([{"url": target, "status": 204}]));
        assert_eq!(service.database().name(OWN).await, "From Elsewhere");
    })
    .await;
}

// Over SQLite alone: the layer that writes these headers knows no database.
#[tokio::test]
async fn settings_let_pages_of_chosen_origins_send_and_read_more() {
    let [ours, other] = [own_address(), own_address()].map(|address| format!("{address}:8080"));
    let origin = format!("http://{ours}");
    let settings = [
        ("ORGD_CORS_ORIGINS", origin.as_str()),
        ("ORGD_CORS_HEADERS", "prefer, If-Match"),
        ("ORGD_CORS_EXPOSED_HEADERS", "etag,x-request-id"),
    ];
    let service = Service::over_sqlite(&settings).await;
    let url = format!("http://{}", service.http_addr());
    let seen = run("settings.mjs", &[&url, &OWN.to_string(), USER, &ours, &other]);
    assert_eq!((&seen[0]["status"], &seen[0]["etag"]), (&json!(200), &json!("\"2\"")), "{seen}");
    assert_eq!(seen[0]["body"]["name"], "With a condition");
    assert_eq!(seen[0]["exposed"], json!([true, true, false]));
    assert_eq!(seen[1], json!({"error": "TypeError"}));

    for (from, allowed) in
        [(Some(&origin), Some(origin.as_str())), (Some(&other), None), (None, None)]
    {
        for method in ["GET", "OPTIONS"] {
            let request = service.request(method, "/v1/whoami");
            let request = from.iter().fold(request, |request, from| request.header("origin", from));
            let answer = request.send().await;
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{from:?}");
            assert_eq!(answer.header("vary"), Some("origin"));
            let names = "authorization, content-type, prefer, if-match";
            assert_eq!(answer.header("access-control-allow-headers"), Some(names));
            let names = "authorization, content-type, etag, x-request-id";
            assert_eq!(answer.header("access-control-expose-headers"), Some(names));
        }
    }
}

// Over SQLite alone: these answers come from the binary.
#[tokio::test]
async fn the_docs_page_and_the_api_have_their_content_security_policies() {
    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    for service in [&service, &gateway] {
        for (path, content_type) in [
            ("/docs", "text/html; charset=utf-8"),
            ("/docs/page.css", "text/css; charset=utf-8"),
            ("/docs/swagger-ui.css", "text/css"),
            ("/docs/swagger-ui-bundle.js", "text/javascript"),
            ("/docs/swagger-ui-standalone-preset.js", "text/javascript"),
            ("/docs/swagger-initializer.js", "text/javascript"),
            ("/docs/favicon-32x32.png", "image/png"),
        ] {
            let answer = service.request("GET", path).send().await;
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
            assert_eq!(answer.header("cache-control"), Some("public, no-cache"), "{path}");
            assert_own_policy(&answer);
            let etag = answer.header("etag").unwrap();

            let again = service.request("GET", path).header("if-none-match", etag).send().await;
            assert_eq!(again.status(), 304, "{path}");
            assert_eq!(again.header("etag"), Some(etag), "{path}");
            assert_own_policy(&again);

            let head = service.request("HEAD", path).send().await;
            assert_eq!(head.status(), 200, "{path}");
            assert_eq!(head.text(), "", "{path}");
            assert_eq!(head.header("content-length"), answer.header("content-length"), "{path}");

            let post = service.request("POST", path).send().await;
            assert_eq!((post.status(), post.reason().as_str()), (405, "METHOD_NOT_ALLOWED"));
            assert_eq!(post.header("allow"), Some("GET, HEAD, OPTIONS"), "{path}");
            assert_documented_headers(&post);

            let options = service.request("OPTIONS", path).send().await;
            assert_eq!((options.status(), options.header("allow")), (204, post.header("allow")));
        }
        for path in ["/docs/", "/docs/index.html", "/docs/swagger-ui.js", "/Docs"] {
            let answer = service.request("GET", path).send().await;
            assert_eq!((answer.status(), answer.reason().as_str()), (404, "ROUTE_NOT_FOUND"));
            assert_documented_headers(&answer);
        }
        assert_documented_headers(&service.request("GET", "/openapi.json").send().await);
        let document = document(service).await;
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        assert!(document["paths"].as_object().unwrap().keys().all(|path| path.starts_with("/v1/")));
    }
}

/// That the page's policy lets nothing in from elsewhere; the other headers are the documented ones.
fn assert_own_policy(answer: &Answer) {
    let policy = answer.header(POLICY).unwrap();
    let directives: Vec<&str> = policy.split("; ").collect();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(directives.contains(&directive), "{policy} lacks {directive}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("//"), "{policy}");
    for (name, value) in DOCUMENTED_HEADERS.iter().filter(|(name, _)| *name != POLICY) {
        assert_eq!(answer.header(name), Some(*value), "{name}");
    }
}

async fn document(service: &Service) -> Value {
    service.request("GET", "/openapi.json").send().await.json()
}
