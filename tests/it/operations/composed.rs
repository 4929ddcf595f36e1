//! `Dockerfile` and `docker-compose.yml` as they are, on a real engine (`make compose-test`). Images of registries have
//! stand-ins made of this machine's packages (`tests/python/stand_ins.py`), and orgd is built without optimization.

use std::{
    io::Write,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Engine, engine};

const ORGD: &str = "http://127.0.0.1:8080";
const GATEWAY: &str = "http://127.0.0.1:8081";
const READY: &str = "http://127.0.0.1:9090/readyz";
const PROMETHEUS: &str = "http://127.0.0.1:9092/api/v1";

/// How long the composition may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "nothing else waits for this thread")]
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(200));
    }
}

/// Body and status; status 0 where nobody listens.
fn answer(output: std::process::Output) -> (String, u16) {
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (body.to_owned(), status.parse().unwrap())
}

fn get(engine: &Engine, url: &str) -> (String, u16) {
    answer(engine.curl(&[url]).output().unwrap())
}

/// The words of an update of organization 90, whose body comes from standard input.
fn put(engine: &Engine, base: &str, token: &str) -> std::process::Command {
    let url = format!("{base}/v1/organizations/90");
    let authorization = format!("Authorization: Bearer {token}");
    let words = ["-T", ".", "-H", &authorization, "-H", "Content-Type: application/json", &url];
    engine.curl(&words)
}

fn update(engine: &Engine, token: &str, name: &str) -> (String, u16) {
    let mut put = put(engine, GATEWAY, token);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let body = format!(r#"{{"name": "{name}"}}"#);
    put.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    answer(put.wait_with_output().unwrap())
}

/// Makes the images that the files name.
fn make_images(engine: &Engine) {
    let entry = |words: &[&str]| [format!("ENTRYPOINT {words:?}")];
    engine.stand_in("postgres:18", &["postgres"], &entry(&["/usr/local/bin/entrypoint"]));
    let words = [
        "/usr/bin/prometheus",
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/tmp",
    ];
    engine.stand_in("prom/prometheus:v3.5.0", &["prometheus"], &entry(&words));
    engine.stand_in("gcr.io/distroless/cc-debian12:nonroot", &["distroless"], &[]);
    engine.stand_in_for_rust("rust:1.95-bookworm");
    let build = format!("BUILD={}", engine::BUILD);
    engine.compose(&["build", "--build-arg", &build, "--build-arg", "REVISION=abc", "orgd"]);
}

fn check_image(engine: &Engine) {
    let image: Value = serde_json::from_str(&engine.docker(&["image", "inspect", "orgd"])).unwrap();
    let config = &image[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("revision"), "abc");
    let version = engine.docker(&["run", "--rm", "orgd", "--version"]);
    assert_eq!(version.trim(), concat!("orgd ", env!("CARGO_PKG_VERSION")));
}

/// Starts what the composition has, but what has no stand-in, and waits until all is healthy.
fn up(engine: &Engine) {
    let up = ["up", "--detach", "--no-build", "gateway", "prometheus"];
    let started = engine.composing(&up).output().unwrap();
    assert!(started.status.success(), "{}", engine.compose(&["logs", "--no-color"]));
    until("all are healthy", || {
        let listed = engine.docker(&["ps", "--format", "{{.Names}} {{.Status}}"]);
        (listed.matches("(healthy)").count() == 3).then_some(())
    });
}

/// The secret that the composition shows, and what else it says.
fn seeded(engine: &Engine) -> String {
    engine.compose(&["logs", "--no-color", "seed"])
}

fn secret(engine: &Engine) -> String {
    let log = seeded(engine);
    let words = log.split_whitespace();
    let mut tokens = words.filter(|word| word.len() == 36 && word.matches('-').count() == 4);
    tokens.next().unwrap_or_else(|| panic!("{log}")).to_owned()
}

fn check_healing(engine: &Engine, token: &str) {
    engine.compose(&["kill", "postgres"]);
    until("orgd is not ready without its database", || (get(engine, READY).1 == 503).then_some(()));
    assert_eq!(update(engine, token, "Nowhere").1, 503);
    engine.compose(&["start", "postgres"]);
    until("orgd is ready again", || (get(engine, READY).1 == 200).then_some(()));
    until("updates go on", || (update(engine, token, "Healed").1 == 200).then_some(()));
}

fn check_prometheus(engine: &Engine) {
    until("Prometheus has asked both", || {
        let (body, status) = get(engine, &format!("{PROMETHEUS}/query?query=orgd_ready"));
        let answer: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        let series = answer["data"]["result"].as_array()?;
        let ready: Vec<_> = series.iter().filter(|one| one["value"][1] == "1").collect();
        (ready.len() == 2).then_some(())
    });
    let rules: Value =
        serde_json::from_str(&get(engine, &format!("{PROMETHEUS}/rules")).0).unwrap();
    assert!(!rules["data"]["groups"].as_array().unwrap().is_empty(), "{rules}");
}

/// A request that is half sent when the service is told to stop is answered.
fn check_draining(engine: &Engine, token: &str) {
    let mut put = put(engine, ORGD, token);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut body = put.stdin.take().unwrap();
    body.write_all(br#"{"name": "#).unwrap();
    let mut stop = engine.composing(&["stop", "gateway", "orgd"]).spawn().unwrap();
    until("orgd is not ready while it stops", || (get(engine, READY).1 != 200).then_some(()));
    body.write_all(br#""Drained"}"#).unwrap();
    drop(body);
    let (body, status) = answer(put.wait_with_output().unwrap());
    assert_eq!(status, 200, "{body}");
    assert!(stop.wait().unwrap().success());
    for service in ["orgd", "gateway"] {
        let log = engine.compose(&["logs", "--no-color", service]);
        assert!(log.contains("stopped: every request was answered"), "{log}");
        let id = engine.compose(&["ps", "--quiet", service]);
        let code = engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", id.trim()]);
        assert_eq!(code.trim(), "0", "{service}");
    }
}

#[test]
#[ignore = "long: make compose-test"]
fn the_composition_is_built_starts_heals_drains_and_keeps_its_data() {
    let engine = match Engine::start() {
        Ok(engine) => engine,
        Err(why) => return eprintln!("the composition is NOT run here: {why}"),
    };
    let started = Instant::now();
    let now = |what: &str| eprintln!("{:3} s: {what}", started.elapsed().as_secs());
    make_images(&engine);
    now("the images are made");
    check_image(&engine);
    up(&engine);
    now("all are healthy");
    let token = secret(&engine);
    assert_eq!(update(&engine, &token, "Composed").1, 200);
    check_healing(&engine, &token);
    now("PostgreSQL was killed and came back");
    check_prometheus(&engine);
    now("Prometheus has asked both");
    check_draining(&engine, &token);
    now("stopped, and what was under way was answered");

    engine.compose(&["down"]);
    up(&engine);
    let log = seeded(&engine);
    assert!(log.contains("has a valid credential already"), "{log}");
    assert!(log.contains("orgd credential issue"), "{log}");
    let authorization = format!("Authorization: Bearer {token}");
    let url = format!("{GATEWAY}/v1/organizations/90");
    let (body, status) = answer(engine.curl(&["-H", &authorization, &url]).output().unwrap());
    assert!(status == 200 && body.contains("Drained"), "{status} {body}");
    now("started anew over the same data");
}
