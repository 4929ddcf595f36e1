//! Clients that others generate from the OpenAPI document compile strictly, and call the running service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::harness::{OWN, Service, USER};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// A folder of this client alone below `target/clients`, with the document in it and these files of ours.
async fn folder(service: &Service, name: &str, files: &[&str]) -> PathBuf {
    let folder = packages().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let document = service.request("GET", "/openapi.json").send().await;
    fs::write(folder.join("openapi.json"), document.text()).unwrap();
    for file in files {
        fs::copy(Path::new(SOURCES).join(file), folder.join(file)).unwrap();
    }
    folder
}

fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

/// What a program prints.
fn run(program: impl AsRef<Path>, arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(program.as_ref());
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{}: {error}: run `make tools`, which installs it", program.as_ref().display())
    });
    let printed = String::from_utf8([output.stdout.clone(), output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{}: {printed}", program.as_ref().display());
    String::from_utf8(output.stdout).unwrap()
}

/// What the generated client is called with, and what it saw.
fn call(program: impl AsRef<Path>, client: &str, service: &Service, folder: &Path) -> Value {
    let (url, id) = (format!("http://{}", service.http_addr()), OWN.to_string());
    serde_json::from_str(&run(program, &[client, &url, &id, USER], folder)).unwrap()
}

// Over SQLite alone: the document does not depend on the database.
#[tokio::test]
async fn a_generated_typescript_client_compiles_strictly_and_calls_the_service() {
    let service = Service::over_sqlite(&[]).await;
    let folder =
        folder(&service, "typescript", &["client.ts", "tsconfig.json", "package.json"]).await;
    let tool = |name: &str| packages().join("node_modules/.bin").join(name);
    run(tool("openapi-typescript"), &["openapi.json", "--output", "schema.ts"], &folder);
    run(tool("tsc"), &["--project", "."], &folder);
    let seen = call("node", "dist/client.js", &service, &folder);
    assert_eq!(seen, expected("By generated TypeScript", json!({"event": 1})));
}

#[tokio::test]
async fn a_generated_python_client_compiles_strictly_and_calls_the_service() {
    let service = Service::over_sqlite(&[]).await;
    let folder = folder(&service, "python", &["client.py", "mypy.ini", "generator.yml"]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tool = |name: &str| root.join("target/python/bin").join(name);
    let generating = ["generate", "--path", "openapi.json", "--config", "generator.yml"];
    let place = ["--meta", "none", "--output-path", "orgd_client", "--fail-on-warning"];
    run(tool("openapi-python-client"), &[generating.as_slice(), &place].concat(), &folder);
    // Outside of the folder, which is made anew each time.
    let cache = packages().join("mypy");
    let arguments = ["--cache-dir", cache.to_str().unwrap(), "client.py", "orgd_client"];
    run(tool("mypy"), &arguments, &folder);
    let seen = call(tool("python"), "client.py", &service, &folder);
    assert_eq!(seen, expected("By generated Python", json!({})));
}

/// What a client saw that gave the organization this name.
fn expected(name: &str, more: Value) -> Value {
    let mut seen = json!({
        "updated": name,
        "alone": {"id": OWN},
        "refused": "\"2\"",
        "found": name,
        "listed": [OWN],
        "changed": ["name"],
    });
    seen.as_object_mut().unwrap().append(&mut serde_json::from_value(more).unwrap());
    seen
}
