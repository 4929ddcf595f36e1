//! The OpenAPI document: true of the running service by schemathesis, and of the proto's rights. And
//! the protos, by buf.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use orgd::{
    domain::{Field, TEXT_CODE_POINTS_MAX, fields::ID_MAX},
    proto::{rights, v1},
};
use serde_json::{Map, Value, json};

use crate::harness::{ADMINISTRATOR, Service, on_both_databases};

#[tokio::test]
async fn the_document_is_true_of_the_running_service() {
    on_both_databases(async |service| {
        // Other requests on each: what is true of the document does not depend on the database.
        let seed = if service.database().is_sqlite() { "1" } else { "2" };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let url = format!("http://{}", service.http_addr());
        let output = Command::new(root.join("target/python/bin/schemathesis"))
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", root.join("tests/openapi"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(root.join("tests/openapi/schemathesis.toml"))
            .args(["run", &format!("{url}/openapi.json"), "--url", &url])
            .args(["--header", &format!("Authorization: Bearer {ADMINISTRATOR}")])
            // The stream of events has no end; `tests/clients` reads it.
            .args(["--exclude-path", "/v1/organizations/{id}/events"])
            .args(["--checks", "all", "--seed", seed, "--max-examples", "75", "--no-color"])
            .current_dir(std::env::temp_dir())
            .output()
            .expect("the tests need schemathesis: run `make test`, which installs it");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
        // `N generated, N passed, …`
        let summary = report.lines().find(|line| line.contains(" generated, ")).unwrap();
        let generated: u32 = summary.trim().split(' ').next().unwrap().parse().unwrap();
        assert!(generated >= 700, "{summary}");
    })
    .await;
}

#[tokio::test]
async fn the_document_has_the_rights_that_the_proto_declares() {
    on_both_databases(async |service| {
        let answer = service.request("GET", "/openapi.json").send().await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let document = answer.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let declared = rights::declared().unwrap();
        assert_eq!(declared.len(), 8);
        for id in document["paths"]["/v1/organizations/{id}"].as_object().unwrap().values() {
            let schema = &id["parameters"][0]["schema"];
            assert_eq!((&schema["minimum"], &schema["maximum"]), (&1.into(), &ID_MAX.into()));
        }
        let refused =
            service.request("GET", "/v1/organizations/0").bearer(ADMINISTRATOR).send().await;
        assert!(refused.text().contains(&format!("from 1 to {ID_MAX},")), "{}", refused.text());
        for field in Field::ALL {
            assert!(declared.iter().any(|one| one.member == field.member()), "{field:?}");
        }
        for field in declared {
            let member = camel(&field.field);
            let property = format!("/components/schemas/Organization/properties/{member}/x-rights");
            let rights = document.pointer(&property).unwrap_or_else(|| panic!("{property}"));
            for (list, roles) in [("write", &field.write), ("read", &field.read)] {
                let name =
                    |role: &v1::Role| role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
                let roles: Vec<String> = roles.iter().map(name).collect();
                assert_eq!(rights[list], serde_json::json!(roles), "{list} {member}");
            }
        }
    })
    .await;
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(1);
        name + &head.to_uppercase() + tail
    })
}

/// What generators of clients, and the page at /docs, make of the document.
#[tokio::test]
async fn the_document_has_types_for_names_and_an_example_for_each_refusal() {
    let service = Service::over_sqlite(&[]).await;
    let document = service.request("GET", "/openapi.json").send().await.json();
    assert_eq!(document["servers"], json!([{"url": "."}]));
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Role"]["enum"], json!(["user", "support", "administrator"]));
    assert_eq!(schemas["Field"]["enum"], json!(Field::ALL.map(Field::member)));
    for (schema, reason, without) in [
        ("Reason", "ETAG_EXCLUDED", "MESSAGE_MALFORMED"),
        ("FieldReason", "FIELD_UNKNOWN", "CREDENTIAL_NOT_FOUND"),
    ] {
        let reasons = schemas[schema]["enum"].as_array().unwrap();
        assert!(reasons.contains(&reason.into()) && !reasons.contains(&without.into()), "{schema}");
    }
    assert_eq!(
        schemas["Problem"]["properties"]["metadata"]["additionalProperties"]["type"],
        "string"
    );
    let (updated, whole) = (&schemas["Updated"], &schemas["Organization"]);
    assert_eq!(
        (&updated["properties"], &updated["required"]),
        (&whole["properties"], &json!(["id"]))
    );
    let mut with_example = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (status, response) in
            item.as_object().unwrap().values().flat_map(|one| one["responses"].as_object().unwrap())
        {
            let response = match response["$ref"].as_str() {
                Some(named) => document.pointer(named.trim_start_matches('#')).unwrap(),
                None => response,
            };
            let Some(content) = response["content"].as_object() else { continue };
            assert_eq!(content.len(), 1, "{path}, {status}: one media type");
            let Some(problem) = content.get("application/problem+json") else {
                with_example.extend(reasons_of_stream(content));
                continue;
            };
            let examples = problem["examples"].as_object().unwrap();
            assert!(!examples.is_empty(), "{path}, {status}");
            for (reason, example) in examples {
                let (example, is_same) = (&example["value"], *reason == example["value"]["reason"]);
                assert!(is_same && example["detail"].as_str().unwrap().ends_with('.'), "{example}");
                assert!(status == "default" || example["status"].as_u64() == status.parse().ok());
                with_example.insert(reason.clone());
            }
        }
    }
    let reasons = schemas["Reason"]["enum"].as_array().unwrap().iter();
    let reasons: BTreeSet<_> = reasons.map(|one| one.as_str().unwrap().to_owned()).collect();
    assert_eq!(with_example, reasons, "each refusal has an example, and none is of another");
    let too_much = &document["components"]["responses"]["Refused429"]["content"];
    let example = &too_much["application/problem+json"]["examples"]["RATE_LIMITED"]["value"];
    assert_eq!(example["metadata"]["retryAfterSeconds"], "1");
}

/// The reasons of the examples of a stream's last event.
fn reasons_of_stream(content: &Map<String, Value>) -> Vec<String> {
    let examples = content.get("text/event-stream").and_then(|one| one["examples"].as_object());
    let reason = |(reason, example): (&String, &Value)| {
        let event = example["value"].as_str().unwrap();
        let data = event.strip_prefix("event: error\ndata: ").unwrap();
        let problem: Value = serde_json::from_str(data).unwrap();
        assert_eq!(problem["reason"], *reason);
        reason.clone()
    };
    examples.into_iter().flatten().map(reason).collect()
}

/// What buf says of the protos of a folder; nothing where they are as they should be.
fn buf(folder: &Path, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let buf = root.join("target/node/node_modules/.bin/buf");
    assert!(buf.exists(), "the tests need buf: run `make test`, which installs it");
    let output = Command::new(buf).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_protos_are_clean_by_buf() {
    assert_eq!(buf(Path::new(env!("CARGO_MANIFEST_DIR")), &["lint"]), "");
}

/// Clients that were generated from the last release, in any language, still compile and call.
#[test]
fn the_protos_break_no_client_of_the_last_release() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let released = root.join("tests/protos/released.binpb");
    let breaking = ["breaking", "--against", released.to_str().unwrap()];
    assert_eq!(buf(root, &breaking), "");

    // That it would be found.
    let folder = tempfile::TempDir::new().unwrap();
    for source in ["proto", "buf.yaml"] {
        let mut copy = Command::new("cp");
        let copied = copy.arg("-r").arg(root.join(source)).arg(folder.path()).status().unwrap();
        assert!(copied.success());
    }
    let service = folder.path().join("proto/organization/v1/organization_service.proto");
    let text = fs::read_to_string(&service).unwrap();
    fs::write(&service, text.replace("int64 id = 1", "int64 id = 99")).unwrap();
    let found = buf(folder.path(), &breaking);
    assert!(found.contains("Previously present field \"1\""), "{found}");
}

#[test]
fn the_page_of_the_api_names_every_route_rpc_and_parameter() {
    let page = include_str!("../../../docs/API.md");
    for word in [
        "PUT /v1/organizations/{id}",
        "GET /v1/organizations/{id}",
        "GET /v1/organizations",
        "POST /v1/organizations",
        "GET /v1/organizations/{id}/changes",
        "GET /v1/organizations/{id}/events",
        "GET /v1/whoami",
        "GET /openapi.json",
        "GET /docs",
        "validateOnly",
        "writableFields",
        "pageSize",
        "pageToken",
        "lastEventId",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Prefer",
        "Grpc-Timeout",
        "Known quirks",
    ] {
        assert!(page.to_lowercase().contains(&word.to_lowercase()), "docs/API.md lacks {word}");
    }
    let pool = prost_reflect::DescriptorPool::decode(orgd::proto::FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("organization.v1.OrganizationService").unwrap();
    for method in service.methods() {
        assert!(
            page.contains(&format!("`{}`", method.name())),
            "docs/API.md lacks {}",
            method.name()
        );
        for field in method.input().fields() {
            assert!(page.contains(field.name()), "docs/API.md lacks {}", field.name());
        }
    }
}

/// What the domain's constants say, in the words of each page.
#[test]
fn bounds_are_the_same_everywhere() {
    assert_eq!(ID_MAX, (1 << 53) - 1);
    let proto = include_str!("../../../proto/organization/v1/organization_service.proto");
    let api = include_str!("../../../docs/API.md");
    let errors = include_str!("../../../docs/ERRORS.md");
    // How often each names the bound of a text: the proto once a field.
    let texts = [
        ("the proto", proto, Field::ALL.len()),
        ("docs/API.md", api, 2),
        ("docs/ERRORS.md", errors, 1),
    ];
    for (name, text, named) in texts {
        assert!(text.replace("**", "").contains("1 to 2^53-1"), "{name} lacks the largest id");
        assert_eq!(code_points(text), vec![TEXT_CODE_POINTS_MAX.to_string(); named], "{name}");
    }
    let one = format!("1 to {TEXT_CODE_POINTS_MAX} code points");
    assert_eq!(plain(proto).matches(&one).count(), Field::ALL.len(), "the proto has {one}");
    assert!(plain(api).contains(&one), "docs/API.md lacks {one}");
}

/// The text in one line, without the marks of comments and of what is bold.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| *word != "//");
    words.collect::<Vec<_>>().join(" ").replace("**", "")
}

/// The word before each "code points" of a text: how many a value may have.
fn code_points(text: &str) -> Vec<String> {
    let text = plain(text);
    let before = text.match_indices(" code points").map(|(at, _)| text.split_at(at).0);
    before.filter_map(|before| before.rsplit(' ').next()).map(str::to_owned).collect()
}
