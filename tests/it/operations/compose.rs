//! `docker-compose.yml` and what it mounts: read by the real tool, and held to the binary that it
//! starts.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::Arc};

use serde_json::Value;

use crate::harness::{Database, OWN, Service, USER, documents, documents_of, orgd, texts};

/// What watches the service, started on demand.
const OBSERVABILITY: [&str; 3] = ["grafana", "jaeger", "prometheus"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A YAML file of the checkout.
fn file(path: &str) -> Value {
    documents(path).remove(0)
}

fn dashboard() -> Value {
    let text = fs::read(root().join("deploy/grafana/dashboards/orgd.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The compose file as the tool understands it. `config` needs no engine.
fn composition() -> Value {
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(root());
        command.env_remove("ORGD_DATABASE_URL").env_remove("ORGD_OTLP_ENDPOINT");
        command.output().ok().filter(|output| output.status.success())
    };
    let words = ["--profile", "observability", "-f", "docker-compose.yml", "config"];
    let output = run("docker", &[&["compose"], &words[..]].concat())
        .or_else(|| run("docker-compose", &words))
        .expect(
            "docker-compose.yml is valid, and a docker-compose is there: `make test` installs one",
        );
    documents_of(&output.stdout).remove(0)
}

#[test]
fn the_composition_is_valid_and_starts_what_the_binary_has() {
    let composition = composition();
    let services = composition["services"].as_object().unwrap();
    // A version that the tests run on.
    let image = services["postgres"]["image"].as_str().unwrap();
    let version = image.strip_prefix("postgres:").unwrap();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.contains(&format!("\nPOSTGRES := {version}\n")), "{image}");
    let mut ours = Vec::new();
    for (name, service) in services {
        if service["image"] != "orgd" {
            assert!(service.get("build").is_none(), "{name} is built and is not orgd");
            continue;
        }
        ours.push(name.as_str());
        // Every command line is one that the binary reads: --help ends it before it acts.
        let words: Vec<&str> = match &service["command"] {
            Value::String(words) => words.split(' ').collect(),
            words => texts(words),
        };
        assert!(!words.is_empty(), "{name} has no command");
        let read = orgd("", &[&words[..], &["--help"]].concat().join(" "));
        assert_eq!(read.code, 0, "{name}: {}", read.stderr);
        // Every setting is one that the command knows.
        let settings = service["environment"].as_object().unwrap();
        for variable in settings.keys() {
            assert!(read.stdout.contains(variable.as_str()), "{name}: {variable}");
        }
        // These two end.
        if ["organization", "seed"].contains(&name.as_str()) {
            continue;
        }
        // What stays is watched, and sends traces only where they are asked for.
        let check = texts(&service["healthcheck"]["test"]);
        assert_eq!(check, ["CMD", "/usr/local/bin/orgd", "healthcheck"], "{name}");
        assert_eq!(settings["ORGD_OTLP_ENDPOINT"], "", "{name}");
    }
    ours.sort_unstable();
    assert_eq!(ours, ["gateway", "organization", "orgd", "seed"]);
}

#[test]
fn monitoring_starts_on_demand_and_nothing_is_open_to_the_network() {
    // As it is written: the tools rewrite ports and paths, each in its own way.
    let composition = file("docker-compose.yml");
    let mut published = BTreeSet::new();
    for (name, service) in composition["services"].as_object().unwrap() {
        let is_on_demand = OBSERVABILITY.contains(&name.as_str());
        let profiles: &[&str] = if is_on_demand { &["observability"] } else { &[] };
        assert_eq!(texts(&service["profiles"]), profiles, "{name}");
        let image = service["image"].as_str().unwrap();
        let tag = image.split_once(':').map_or("", |(_, tag)| tag);
        assert!(image == "orgd" || tag.contains(|letter: char| letter.is_ascii_digit()), "{image}");
        for port in texts(&service["ports"]) {
            let host = port.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{name}: {port}"));
            assert!(published.insert(host.split(':').next().unwrap()), "{port} is taken twice");
        }
        // A folder or file that is not there would be made by the engine, empty and root's.
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            assert!(!source.starts_with('.') || root().join(source).exists(), "{name}: {source}");
        }
    }
    for name in OBSERVABILITY {
        assert!(composition["services"].get(name).is_some(), "{name}");
    }
}

#[test]
fn prometheus_and_grafana_look_at_services_of_the_composition() {
    let composition = file("docker-compose.yml");
    let listens = |address: &str| {
        let (name, port) = address.split_once(':').unwrap();
        let inside = |published: &str| published.rsplit(':').next() == Some(port);
        assert!(
            texts(&composition["services"][name]["ports"]).into_iter().any(inside),
            "no service listens on {address}"
        );
    };

    let prometheus = file("deploy/prometheus/prometheus.yml");
    let mut targets = Vec::new();
    for job in prometheus["scrape_configs"].as_array().unwrap() {
        assert_eq!(job["metrics_path"], "/metrics");
        for group in job["static_configs"].as_array().unwrap() {
            for target in texts(&group["targets"]) {
                // The rules name instances by job.
                assert_eq!(target.split(':').next(), job["job_name"].as_str());
                listens(target);
                targets.push(target.to_owned());
            }
        }
    }
    assert_eq!(targets, ["orgd:9090", "gateway:9090"]);
    assert_eq!(texts(&prometheus["rule_files"]), ["alerts.yml"]);

    let sources = file("deploy/grafana/provisioning/datasources/orgd.yml");
    let source = &sources["datasources"][0];
    assert_eq!(source["type"], "prometheus");
    listens(source["url"].as_str().unwrap().strip_prefix("http://").unwrap());
    // The dashboard asks the source that is chosen, which is this one to begin with.
    let dashboard = dashboard();
    let chosen = &dashboard["templating"]["list"][0];
    assert_eq!((&chosen["name"], &chosen["type"]), (&"datasource".into(), &"datasource".into()));
    assert_eq!((&chosen["query"], &chosen["current"]["value"]), (&source["type"], &source["uid"]));
    let mut used = Vec::new();
    values("uid", &dashboard["panels"], &mut used);
    values("uid", &dashboard["templating"], &mut used);
    assert!(used.len() > 10 && used.iter().all(|uid| *uid == "${datasource}"), "{used:?}");
    for panel in dashboard["panels"].as_array().unwrap() {
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["datasource"]["uid"] == "${datasource}", "{}", panel["title"]);
    }

    // Grafana reads dashboards where the composition puts them.
    let providers = file("deploy/grafana/provisioning/dashboards/orgd.yml");
    let folder = providers["providers"][0]["options"]["path"].as_str().unwrap();
    let grafana = &composition["services"]["grafana"];
    let mount = format!("./deploy/grafana/dashboards:{folder}:ro");
    assert!(texts(&grafana["volumes"]).contains(&mount.as_str()), "{mount}");
    let home = &grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(home, &format!("{folder}/orgd.json"));
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let alerts = file("deploy/prometheus/alerts.yml");
    let groups = alerts["groups"].as_array().unwrap().iter();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 8);
    let names: BTreeSet<_> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), rules.len(), "a name is used twice");
    for rule in rules {
        let name = &rule["alert"];
        let length = |text: &str| rule["annotations"][text].as_str().map_or(0, str::len);
        assert!(length("summary") > 20 && length("description") > 100, "{name}");
        assert!(
            ["page", "ticket"].map(Value::from).contains(&rule["labels"]["severity"]),
            "{name}"
        );
    }
}

/// The metrics that a Prometheus expression names: words that are no function, keyword or label.
fn metrics_of(expression: &str) -> Vec<String> {
    const KEYWORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    const LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    // Quoted texts go first: they may have brackets of their own.
    let unquoted: String = expression.split('"').step_by(2).collect();
    let mut rest = unquoted.as_str();
    let mut names = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '{' {
            rest = rest.split_once('}').expect(expression).1;
        } else if first == '[' {
            rest = rest.split_once(']').expect(expression).1;
        } else if is_of_word(first) {
            let end = rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            let is_called = ["(", "by", "without"].iter().any(|next| rest.starts_with(next));
            if LABELS.contains(&word) && rest.starts_with('(') {
                rest = rest.split_once(')').expect(expression).1;
            } else if !is_called
                && !KEYWORDS.contains(&word)
                && !LABELS.contains(&word)
                && !first.is_ascii_digit()
            {
                names.push(word.to_owned());
            }
        } else {
            rest = rest.split_at(first.len_utf8()).1;
        }
    }
    names
}

#[test]
fn metrics_are_found_in_expressions() {
    for (expression, metrics) in [
        ("up == 0", &["up"][..]),
        (
            "sum by (job, le) (rate(a_bucket{route=~\"/v1/{id}[0]\", x!=\"\"}[5m])) > 0.5",
            &["a_bucket"],
        ),
        ("(time() - b) * on (job) group_left (version) c{x=\"y\"} or vector(0)", &["b", "c"]),
        ("topk(3, a / on (x) b) unless c offset 5m and d > bool 1e3", &["a", "b", "c", "d"]),
    ] {
        assert_eq!(metrics_of(expression), metrics, "{expression}");
    }
}

/// Every value of this key, however deep.
fn values<'a>(key: &str, tree: &'a Value, found: &mut Vec<&'a str>) {
    match tree {
        Value::Array(items) => {
            for item in items {
                values(key, item, found);
            }
        }
        Value::Object(members) => {
            found.extend(members.get(key).and_then(Value::as_str));
            for member in members.values() {
                values(key, member, found);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_of_alerts_and_dashboards_exists() {
    let database = Database::postgres().await;
    database.seed().await;
    // As in the composition: traces are off.
    let settings = [("ORGD_OTLP_ENDPOINT", "")];
    let service = Service::start_with(Arc::new(database), &settings).await;
    for (body, status) in [(r#"{"name": "Measured"}"#, 200), (r#"{"name": ""}"#, 400)] {
        assert_eq!(service.put(OWN, USER, body).send().await.status(), status);
    }
    let answer = service.get_ops("/metrics").await;
    assert_eq!(answer.status(), 200);
    let samples = answer.text().lines().filter(|line| !line.starts_with('#'));
    let mut known: BTreeSet<&str> =
        samples.map(|sample| sample.split(['{', ' ']).next().unwrap()).collect();
    // Prometheus's own.
    known.insert("up");
    // Only where there is a certificate: `listener::tls` looks at it.
    known.insert("orgd_tls_certificate_expiry_timestamp_seconds");

    for (name, tree, distinct_min) in [
        ("the dashboard", dashboard(), 10),
        ("alerts.yml", file("deploy/prometheus/alerts.yml"), 8),
    ] {
        let mut expressions = Vec::new();
        values("expr", &tree, &mut expressions);
        // A variable of a dashboard is `label_values(METRIC, LABEL)`.
        let mut variables = Vec::new();
        values("definition", &tree, &mut variables);
        expressions.extend(variables.iter().map(|variable| variable.rsplit_once(',').unwrap().0));
        let used: BTreeSet<String> = expressions.into_iter().flat_map(metrics_of).collect();
        assert!(used.len() >= distinct_min, "{name}: {used:?}");
        let missing: Vec<_> = used.iter().filter(|used| !known.contains(used.as_str())).collect();
        assert!(missing.is_empty(), "{name} looks at {missing:?}, which the service does not have");
    }
}

#[test]
fn pages_and_image_name_the_oldest_rust_that_builds_it() {
    let text = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let oldest = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(text("README.md").contains(&format!("Rust {oldest} or newer")));
    assert!(text("Dockerfile").contains(&format!("FROM rust:{oldest}-")));
}

/// What `make compose-test` builds for real, as far as it can be seen without an engine.
#[test]
fn the_image_has_every_crate_of_the_workspace_and_no_root() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let has = |line: &str| assert!(dockerfile.contains(line), "no {line}");
    has("\nARG BUILD=\"--profile=dist\"\n");
    has("\nENTRYPOINT [\"/usr/local/bin/orgd\"]\n");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    has(&format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION")));
    has(&format!("image.description=\"{}\"", env!("CARGO_PKG_DESCRIPTION")));

    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let members: Vec<_> = members.iter().map(|member| member.as_str().unwrap()).collect();
    for member in &members {
        has(&format!("\nCOPY {member}/Cargo.toml {member}/\n"));
        has(&format!("\nCOPY {member} {member}\n"));
    }
    has(&format!("for crate in . {}; do", members.join(" ")));

    // The layer of dependencies comes before the first source, so it stays when one changes.
    let (of_dependencies, of_sources) =
        dockerfile.split_once("cargo build --locked $BUILD\n").unwrap();
    let sources = || members.iter().copied().chain(["src", "build.rs", "proto"]);
    for source in sources() {
        let copied = |text: &str| text.contains(&format!("\nCOPY {source} "));
        assert!(!copied(of_dependencies) && copied(of_sources), "{source}");
    }
}
