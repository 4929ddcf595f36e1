//! What operators see: log lines, audit events, metrics, and traces at a real receiver.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use orgd::proto::v1::{GetOrganizationRequest, Organization, UpdateOrganizationRequest};
use serde_json::Value;
use tonic::Code;

use crate::harness::{
    ADMINISTRATOR, Database, FOREIGN, OWN, PATIENCE, Receiver, SERVE, Service, USER, authorized,
    on_both_databases, on_both_databases_with, orgd, orgd_with,
};

const REMOTE_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const REMOTE_SPAN: &str = "b7ad6b7169203331";
const SECRET_TEXT: &str = "a-text-of-the-body";

/// The log lines of a target, once there are so many.
async fn lines(service: &Service, target: &str, count: usize) -> Vec<Value> {
    let finding = async {
        loop {
            let log = service.log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found: Vec<_> = events.filter(|event| event["target"] == target).collect();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, finding).await;
    found.unwrap_or_else(|_| panic!("{count} lines of {target}: {}", service.log()))
}

async fn put(service: &Service, id: i64, request_id: &str) -> u16 {
    let body = format!(r#"{{"name": "{SECRET_TEXT}"}}"#);
    service.put(id, USER, &body).header("x-request-id", request_id).send().await.status()
}

fn get(id: i64) -> tonic::Request<GetOrganizationRequest> {
    authorized(USER, GetOrganizationRequest { id, ..GetOrganizationRequest::default() })
}

/// A gateway learns whose a credential is when the service has taken it.
#[tokio::test]
async fn a_gateways_lines_name_the_caller_as_the_services_do() {
    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    assert_eq!(put(&gateway, OWN, "first").await, 200);
    assert_eq!(put(&gateway, FOREIGN, "second").await, 403);
    assert_eq!(gateway.request("PUT", "/v1/organizations/90").send().await.status(), 401);
    let of_gateway = lines(&gateway, "orgd::request", 3).await;
    assert_eq!(of_gateway[0]["subject"], "test-user");
    assert_eq!(
        (&of_gateway[2]["subject"], &of_gateway[2]["credential"]),
        (&Value::Null, &Value::Null)
    );
    let of_service = lines(&service, "orgd::request", 2).await;
    for line in &of_gateway[..2] {
        let same = of_service.iter().filter(|same| same["request_id"] == line["request_id"]);
        let is_named = |same: &Value| {
            ["subject", "credential", "client"].iter().all(|key| same[key] == line[key])
        };
        assert!(same.clone().count() > 0 && same.clone().all(is_named), "{line}: {of_service:?}");
    }
}

#[tokio::test]
async fn every_request_has_one_line_and_no_secret() {
    on_both_databases(async |service| {
        assert_eq!(put(&service, OWN, "first").await, 200);
        assert_eq!(put(&service, FOREIGN, "second").await, 403);
        assert_eq!(service.request("PUT", "/v1/organizations/90").send().await.status(), 401);
        assert_eq!(service.request("BREW", "/coffee?token=pot").send().await.status(), 404);
        service.grpc().get(get(OWN)).await.unwrap();
        let refused = service.grpc().get(get(FOREIGN)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);

        let lines = lines(&service, "orgd::request", 6).await;
        let rest = |line: &Value| {
            let keys = ["method", "route", "status", "subject", "organization"];
            keys.map(|key| line[key].to_string()).join(" ")
        };
        let route = "\"/v1/organizations/{id}\"";
        let found: Vec<_> = lines[..4].iter().map(rest).collect();
        assert_eq!(
            found,
            [
                format!("\"PUT\" {route} 200 \"test-user\" 90"),
                format!("\"PUT\" {route} 403 \"test-user\" 94"),
                format!("\"PUT\" {route} 401 null 90"),
                "\"_OTHER\" \"\" 404 null null".to_owned(),
            ]
        );
        assert_eq!(lines[0]["request_id"], "first");
        let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str()).collect();
        let forbidden = Some("ORGANIZATION_FORBIDDEN");
        let others = [Some("CREDENTIAL_MISSING"), Some("ROUTE_NOT_FOUND")];
        assert_eq!(reasons, [None, forbidden, others[0], others[1], None, forbidden]);
        let listed = orgd(service.database().url(), "credential list").stdout;
        for line in &lines {
            assert_eq!(line["client"], "127.0.0.1", "{line}");
            let credential = line["credential"].as_str();
            let named = credential.and_then(|id| listed.lines().find(|row| row.starts_with(id)));
            assert_eq!(named.is_some(), !line["subject"].is_null(), "{line} in {listed}");
            assert!(named.is_none_or(|row| row.contains("test-user")), "{line} is of {named:?}");
        }
        let rpc = |line: &Value| {
            ["method", "code", "subject", "organization"].map(|key| line[key].to_string()).join(" ")
        };
        let method = "\"organization.v1.OrganizationService/Get\"";
        assert_eq!(rpc(&lines[4]), format!("{method} \"OK\" \"test-user\" 90"));
        assert_eq!(rpc(&lines[5]), format!("{method} \"PERMISSION_DENIED\" \"test-user\" 94"));
        assert_eq!(lines.len(), 6, "a request over REST is one, and not a call besides");
        for line in &lines {
            assert!(line["latency_ms"].as_f64().unwrap() > 0.0, "{line}");
            assert!(!line["request_id"].as_str().unwrap().is_empty(), "{line}");
        }
        for secret in [USER, SECRET_TEXT, "pot"] {
            assert!(!service.log().contains(secret), "{secret} in {}", service.log());
        }
    })
    .await;
}

#[tokio::test]
async fn changes_and_refused_rights_are_audit_events() {
    on_both_databases(async |service| {
        assert_eq!(put(&service, OWN, "first").await, 200);
        assert_eq!(put(&service, FOREIGN, "second").await, 403);
        let create = service
            .request("POST", "/v1/organizations")
            .bearer(ADMINISTRATOR)
            .header("content-type", "application/json")
            .body(r#"{"name": "New", "handshake": "secret-handshake"}"#);
        assert_eq!(create.send().await.status(), 201);
        let events = lines(&service, "orgd::audit", 3).await;
        let keys = ["message", "action", "subject", "role", "organization", "fields"];
        let found: Vec<_> =
            events.iter().map(|event| keys.map(|key| event[key].to_string()).join(" ")).collect();
        assert_eq!(
            found,
            [
                r#""done" "organization.update" "test-user" "user" 90 "name""#,
                r#""refused" null "test-user" "user" 94 null"#,
                r#""done" "organization.create" "test-administrator" "administrator" 95 "name,handshake""#,
            ]
        );
        assert_eq!(events[0]["request_id"], "first");
        assert_eq!(events[1]["request_id"], "second");
        assert_eq!(events[1]["reason"], "ORGANIZATION_FORBIDDEN");
        let listed = orgd_with(&[("ORGD_DATABASE_URL", service.database().url())], "credential list");
        for event in &events {
            let row = listed.stdout.lines().find(|row| row.contains(event["subject"].as_str().unwrap()));
            assert!(row.unwrap().starts_with(event["credential"].as_str().unwrap()), "{event}");
        }
        assert!(!service.log().contains("secret-handshake"));

        let audited =
            [("ORGD_DATABASE_URL", service.database().url()), ("ORGD_LOG", "orgd::audit=info")];
        let issued = orgd_with(&audited, "credential issue --role support --subject s");
        assert!(issued.stderr.contains("credential.issue"), "{}", issued.stderr);
        let secret = issued.stdout.split_whitespace().last().unwrap();
        assert!(!issued.stderr.contains(secret), "{}", issued.stderr);
    })
    .await;
}

#[tokio::test]
async fn log_lines_have_the_configured_format_and_levels() {
    let settings =
        [("ORGD_LOG_FORMAT", "text"), ("ORGD_LOG", "warn,orgd::audit=info,orgd::server=info")];
    let database = Database::sqlite();
    database.seed().await;
    let output = orgd_text(&database, &settings).await;
    assert!(output.contains(" INFO ") && output.contains("orgd::audit"), "{output}");
    assert!(output.contains("action=\"organization.update\""), "{output}");
    assert!(!output.contains("orgd::request"), "{output}");
}

/// What a service logs of one update, whatever its format.
async fn orgd_text(database: &Database, settings: &[(&str, &str)]) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_orgd"))
        .args(SERVE)
        .env("ORGD_DATABASE_URL", database.url())
        .env("ORGD_LAME_DUCK_TIME", "0s")
        .envs(settings.iter().copied())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let listening = async {
        loop {
            let text = std::fs::read_to_string(log.path()).unwrap();
            let line = text.lines().find(|line| line.contains("listening"));
            let addr = line.and_then(|line| line.split_once(" http=")?.1.split(' ').next());
            if let Some(addr) = addr {
                return addr.parse::<SocketAddr>().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let addr = tokio::time::timeout(PATIENCE, listening).await.unwrap();
    let put = crate::harness::Request::new(addr, "PUT", "/v1/organizations/90");
    let put = put.bearer(USER).body(r#"{"name": "x"}"#);
    assert_eq!(put.send().await.status(), 200);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    std::fs::read_to_string(log.path()).unwrap()
}

/// The value of a metric, whose labels are these; nothing where it is not there.
async fn metric(service: &Service, name: &str, labels: &[&str]) -> f64 {
    let metrics = service.get_ops("/metrics").await;
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
    };
    let values = metrics.text().lines().filter(is_it);
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn metrics_count_what_happens() {
    on_both_databases_with(&[("ORGD_AUTH_CACHE_TTL", "1h")], async |service| {
        let http =
            ("http_server_request_duration_seconds_count", "http_route=\"/v1/organizations/{id}\"");
        let rpc = ("rpc_server_call_duration_seconds_count", "OrganizationService/Update\"");
        let system = if service.database().is_sqlite() { "sqlite" } else { "postgresql" };
        let system = format!("db_system_name=\"{system}\"");
        let moves: [(&str, &[&str], f64); 12] = [
            (http.0, &[http.1, "http_request_method=\"PUT\"", "_status_code=\"200\""], 1.0),
            (http.0, &[http.1, "_status_code=\"403\""], 1.0),
            (rpc.0, &[rpc.1, "_status_code=\"OK\"", "rpc_system_name=\"grpc\""], 1.0),
            (rpc.0, &[rpc.1, "_status_code=\"PERMISSION_DENIED\""], 1.0),
            (rpc.0, &["rpc_method=\"_OTHER\"", "_status_code=\"UNIMPLEMENTED\""], 1.0),
            ("orgd_batch_size_sum", &["queue=\"updates\""], 1.0),
            ("db_client_operation_duration_seconds_count", &[&system, "=\"UPDATE\""], 1.0),
            // One lookup, and two who find it remembered.
            ("orgd_auth_cache_lookups_total", &["result=\"miss\""], 1.0),
            ("orgd_auth_cache_lookups_total", &["result=\"known\""], 2.0),
            ("orgd_auth_cache_entries", &["cache=\"known\""], 1.0),
            ("orgd_change_log_entries_total", &[], 1.0),
            // Three numbers and a date, name, subscription, subject, role and the request's id.
            ("orgd_change_log_bytes_total", &[], 32.0 + 18.0 + 4.0 + 9.0 + 4.0 + 5.0),
        ];
        let mut before = Vec::new();
        for (name, labels, _) in moves {
            before.push(metric(&service, name, labels).await);
        }
        assert_eq!(put(&service, OWN, "first").await, 200);
        assert_eq!(put(&service, FOREIGN, "second").await, 403);
        let unknown = service.channel();
        let mut client = tonic::client::Grpc::new(unknown);
        client.ready().await.unwrap();
        let path =
            http::uri::PathAndQuery::from_static("/organization.v1.OrganizationService/Brew");
        let codec = tonic_prost::ProstCodec::<UpdateOrganizationRequest, Organization>::default();
        let message = authorized(USER, UpdateOrganizationRequest::default());
        client.unary(message, path, codec).await.unwrap_err();
        for ((name, labels, by), before) in moves.into_iter().zip(before) {
            let after = metric(&service, name, labels).await;
            assert!((after - before - by).abs() < 0.01, "{name} {labels:?}: {before} to {after}");
        }

        let open = metric(&service, "orgd_connections", &["listener=\"http\""]).await;
        let kept = tokio::net::TcpStream::connect(service.http_addr()).await.unwrap();
        let opened = async {
            while metric(&service, "orgd_connections", &["listener=\"http\""]).await <= open {}
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("a connection more");
        drop(kept);
        for (name, labels, value) in [
            ("orgd_ready", &[][..], 1.0),
            ("orgd_build_info", &[concat!("version=\"", env!("CARGO_PKG_VERSION"))][..], 1.0),
            ("orgd_migrations", &["state=\"applied\""][..], 6.0),
            ("orgd_migrations", &["state=\"pending\""][..], 0.0),
            ("orgd_migrations", &["state=\"unknown\""][..], 0.0),
        ] {
            let found = metric(&service, name, labels).await;
            assert!((found - value).abs() < 0.01, "{name} {labels:?}: {found}");
        }
        let connections = metric(&service, "db_client_connection_count", &[]).await;
        assert!(connections >= 1.0, "{connections}");
    })
    .await;
}

fn hexadecimal(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

async fn put_with_parent(service: &Service) {
    let parent = format!("00-{REMOTE_TRACE}-{REMOTE_SPAN}-01");
    let request = service.put(OWN, USER, &format!(r#"{{"name": "{SECRET_TEXT}"}}"#));
    assert_eq!(request.header("traceparent", &parent).send().await.status(), 200);
}

const REST: &str = "PUT /v1/organizations/{id}";
const RPC: &str = "organization.v1.OrganizationService/Update";
const SQL: &str = "UPDATE organizations";

#[tokio::test]
async fn a_trace_goes_from_its_caller_through_rest_and_grpc_to_sql() {
    let (receiver, url) = Receiver::start().await;
    let settings = [("ORGD_OTLP_ENDPOINT", url.as_str()), ("ORGD_TRACE_REMOTE_PARENTS", "true")];
    on_both_databases_with(&settings, async |service| {
        receiver.clear();
        put_with_parent(&service).await;
        let parent = data_encoding::HEXLOWER.decode(REMOTE_SPAN.as_bytes()).unwrap();
        let rest = receiver.span(REST, &parent).await;
        let rpc = receiver.span(RPC, &rest.span_id).await;
        let sql = receiver.span(SQL, &rpc.span_id).await;
        for span in [&rest, &rpc, &sql] {
            assert_eq!(hexadecimal(&span.trace_id), REMOTE_TRACE);
            assert!(!format!("{span:?}").contains(SECRET_TEXT), "{span:#?}");
        }
        let lines = lines(&service, "orgd::request", 1).await;
        assert_eq!(lines[0]["trace_id"], REMOTE_TRACE);
    })
    .await;
}

#[tokio::test]
async fn a_trace_goes_through_a_gateway_of_its_own_process() {
    let (receiver, url) = Receiver::start().await;
    let endpoint = ("ORGD_OTLP_ENDPOINT", url.as_str());
    let trusting = [endpoint, ("ORGD_TRACE_REMOTE_PARENTS", "true")];
    on_both_databases_with(&trusting, async |service| {
        // Callers from outside are not believed.
        let gateway = Service::start_gateway_with(&service, "http", &[endpoint]).await;
        receiver.clear();
        put_with_parent(&gateway).await;
        let rest = receiver.span(REST, &[]).await;
        let rpc = receiver.span(RPC, &rest.span_id).await;
        let sql = receiver.span(SQL, &rpc.span_id).await;
        assert_ne!(hexadecimal(&rest.trace_id), REMOTE_TRACE);
        assert!(rest.trace_id == rpc.trace_id && rpc.trace_id == sql.trace_id);
    })
    .await;
}

#[tokio::test]
async fn unsampled_requests_make_no_trace() {
    let (receiver, url) = Receiver::start().await;
    let settings = [("ORGD_OTLP_ENDPOINT", url.as_str()), ("ORGD_TRACE_SAMPLE_RATIO", "0")];
    let service = Service::over_sqlite(&settings).await;
    put_with_parent(&service).await;
    service.signal("TERM");
    // Whatever was traced is sent before the process ends.
    assert!(service.ended().await.success());
    assert!(receiver.spans().is_empty());
}

#[tokio::test]
async fn an_absent_trace_receiver_delays_no_request_and_no_stop() {
    let database = Database::sqlite();
    database.seed().await;
    let settings = [("ORGD_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let service = Service::start_with(Arc::new(database), &settings).await;
    put_with_parent(&service).await;
    service.signal("TERM");
    assert!(service.ended().await.success());
}

#[tokio::test]
async fn the_environment_of_opentelemetry_names_the_service() {
    for (variables, name) in [
        (&[][..], "orgd"),
        (&[("OTEL_SERVICE_NAME", "orgd-west")][..], "orgd-west"),
        (&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=orgd-east,zone=a")][..], "orgd-east"),
        (
            &[("OTEL_SERVICE_NAME", "first"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=second")],
            "first",
        ),
    ] {
        let (receiver, url) = Receiver::start().await;
        let database = Database::sqlite();
        database.seed().await;
        // Endpoint and sampler are settings of ours alone.
        let ours = [
            ("ORGD_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ];
        let settings = [&ours[..], variables].concat();
        let service = Service::start_with(Arc::new(database), &settings).await;
        put_with_parent(&service).await;
        service.signal("TERM");
        assert!(service.ended().await.success());
        let sender = receiver.sender();
        assert_eq!(sender.get("service.name").map(String::as_str), Some(name), "{sender:?}");
        let version = sender.get("service.version").map(String::as_str);
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{sender:?}");
        assert_eq!(sender.contains_key("zone"), name == "orgd-east", "{sender:?}");
    }
}
