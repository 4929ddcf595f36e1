//! `docker-compose.yml`: read by the real tool, and held to the binary that it starts.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::harness::orgd;

/// The file as the tool understands it. `config` needs no engine.
fn composition() -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(root).env_remove("ORGD_DATABASE_URL");
        command.output().ok().filter(|output| output.status.success())
    };
    let words = ["-f", "docker-compose.yml", "config"];
    let output = run("docker", &[&["compose"], &words[..]].concat())
        .or_else(|| run("docker-compose", &words))
        .expect(
            "docker-compose.yml is valid, and a docker-compose is there: `make test` installs one",
        );
    // The tool prints YAML; Python, which it may be written in, makes JSON of it.
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut python = Command::new(root.join("target/python/bin/python"))
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the tests need PyYAML: run `make test`, which installs it");
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), &output.stdout).unwrap();
    serde_json::from_slice(&python.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_composition_is_valid_and_starts_what_the_binary_has() {
    let composition = composition();
    let services = composition["services"].as_object().unwrap();
    assert!(services["postgres"]["image"].as_str().unwrap().starts_with("postgres:17"));
    for (name, service) in services {
        if service.get("build").is_none() && !service["image"].as_str().unwrap().contains("orgd") {
            continue;
        }
        // Every command line is one that the binary reads: --help ends it before it acts.
        let words: Vec<&str> = match &service["command"] {
            Value::Array(words) => words.iter().map(|word| word.as_str().unwrap()).collect(),
            Value::String(words) => words.split(' ').collect(),
            other => panic!("{name} has no command: {other}"),
        };
        let read = orgd("", &[&words[..], &["--help"]].concat().join(" "));
        assert_eq!(read.code, 0, "{name}: {}", read.stderr);
        // Every setting is one that the binary knows.
        for variable in service["environment"].as_object().unwrap().keys() {
            assert!(read.stdout.contains(variable.as_str()), "{name}: {variable}");
        }
    }
    let check = services["orgd"]["healthcheck"]["test"].as_array().unwrap();
    assert_eq!(check, &["CMD", "/usr/local/bin/orgd", "healthcheck"].map(Value::from));
}

#[test]
fn the_image_is_built_by_the_commands_that_the_tests_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    assert!(dockerfile.contains("cargo build --release --locked"));
    assert!(dockerfile.contains("\nUSER nonroot"));
    assert!(dockerfile.contains("ENTRYPOINT [\"/usr/local/bin/orgd\"]"));

    // The build finds all that it needs in what the image copies.
    let folder = tempfile::TempDir::new().unwrap();
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ")) {
        if line.contains("--from=") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let (_, sources) = words.split_last().unwrap();
        for source in sources {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(root.join(source)).arg(folder.path());
            assert!(copy.status().unwrap().success(), "{source}");
        }
    }
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--locked", "--target-dir"])
        .arg(root.join("target"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
