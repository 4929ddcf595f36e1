//! The programs below `examples/`, run as their readers run them, against the real service.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use orgd::domain::Field;

use crate::harness::{ADMINISTRATOR, Database, OWN, Service, USER, interpreter, on_both_databases};

const PATIENCE: Duration = Duration::from_secs(60);

struct Example {
    /// The name that it gives the organization.
    name: &'static str,
    /// How its API spells the field.
    subscription: &'static str,
    command: fn() -> Command,
}

const EXAMPLES: [Example; 5] = [
    Example { name: "By the Rust example", subscription: "subscription_id", command: rust },
    Example { name: "By the Python example", subscription: "subscription_id", command: python },
    Example {
        name: "By the TypeScript gRPC example",
        subscription: "subscription_id",
        command: || typescript("grpc.js"),
    },
    Example {
        name: "By the TypeScript REST example",
        subscription: "subscriptionId",
        command: || typescript("rest.js"),
    },
    Example { name: "By the curl example", subscription: "subscriptionId", command: curl },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_orgd")).with_file_name("examples").join("update");
    assert!(
        program.exists(),
        "the Rust example is not built: run `cargo build --profile test --examples`"
    );
    Command::new(program)
}

fn python() -> Command {
    let mut command = interpreter();
    command.arg(root().join("examples/python/update.py"));
    command
}

fn typescript(program: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new("node");
    command.arg(BUILT.get_or_init(build_typescript).join("dist").join(program));
    command
}

/// Builds the TypeScript programs below `target/`, where their packages are, and where the build
/// checks their types.
fn build_typescript() -> PathBuf {
    let (sources, folder) = (root().join("examples/typescript"), root().join("target/examples"));
    let lock = |folder: &Path| fs::read_to_string(folder.join("package-lock.json")).ok();
    assert!(
        folder.join("node_modules").exists() && lock(&folder) == lock(&sources),
        "the TypeScript examples need Node.js and their packages: install Node.js, and run \
         `make test`, which installs the packages"
    );
    for entry in fs::read_dir(sources).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let build =
        Command::new("npm").args(["run", "--silent", "build"]).current_dir(&folder).output();
    let build = build.expect("the TypeScript examples need npm, which comes with Node.js");
    let printed = String::from_utf8([build.stdout, build.stderr].concat()).unwrap();
    assert!(build.status.success(), "the TypeScript examples do not build: {printed}");
    folder
}

fn curl() -> Command {
    let mut command = Command::new("sh");
    command.arg(root().join("examples/curl/example.sh"));
    command
}

/// A running example, killed with the value.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(example: &Example, service: &Service, token: &str, entries: u32) -> Self {
        let mut child = (example.command)()
            .env("EXAMPLE_HTTP", format!("http://{}", service.http_addr()))
            .env("EXAMPLE_GRPC", service.grpc_addr().to_string())
            .env("ORGD_TOKEN", token)
            .env("EXAMPLE_ORGANIZATION", OWN.to_string())
            .env("EXAMPLE_ENTRIES", entries.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot start: {error}", example.name));
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Ends with the process, whose end closes the pipe.
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line; none once there are no more.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the example neither prints nor ends"),
            line => line.ok(),
        }
    }

    /// The lines that are left, the exit code, and what it says of a failure.
    fn end(mut self) -> (Vec<String>, Option<i32>, String) {
        let lines = std::iter::from_fn(|| self.line()).collect();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (lines, self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_example_updates_clears_and_follows() {
    on_both_databases(async |service| {
        let database = service.database();
        for example in &EXAMPLES {
            let Example { name, subscription, .. } = *example;
            database.reset().await;
            let program = Program::start(example, &service, ADMINISTRATOR, 4);
            for expected in [
                format!("name: Organization {OWN} -> {name}"),
                "stale etag refused: ETAG_MISMATCH".to_owned(),
                "subscription cleared".to_owned(),
                format!("change 1 by operator: name, {subscription}"),
                "change 2 by test-administrator: name".to_owned(),
                format!("change 3 by test-administrator: {subscription}"),
            ] {
                let line = program.line();
                assert!(
                    line.as_ref() == Some(&expected),
                    "{name}: {line:?} for {expected}; then {:?}",
                    program.end()
                );
            }
            let stored = database.organization(OWN).await;
            assert_eq!(
                (stored.value(Field::Name), stored.value(Field::SubscriptionId)),
                (Some(name), None)
            );
            let changes = database.changes(OWN).await;
            let subjects: Vec<_> = changes.iter().map(|change| change.subject.as_str()).collect();
            assert_eq!(subjects, ["operator", "test-administrator", "test-administrator"]);

            // It has seen all that there is, so it must have waited for this one.
            assert_eq!(service.put(OWN, USER, r#"{"name": "Later"}"#).send().await.status(), 200);
            let (lines, code, stderr) = program.end();
            assert_eq!(lines, ["change 4 by test-user: name"], "{name}: {stderr}");
            assert_eq!(code, Some(0), "{name}: {stderr}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_example_tells_the_reason_and_the_request_of_a_refusal() {
    let service = Service::over_sqlite(&[]).await;
    for example in &EXAMPLES {
        // A user may change the name, but not the subscription.
        let (lines, code, stderr) = Program::start(example, &service, USER, 1).end();
        assert_eq!((lines.len(), code), (2, Some(1)), "{}: {lines:?} {stderr}", example.name);
        let told = stderr.split_once("FIELD_FORBIDDEN (request ").and_then(|(_, rest)| {
            let (id, text) = rest.split_once("): ")?;
            text.contains("may not change subscription_id").then_some(id)
        });
        let request_id = told.unwrap_or_else(|| panic!("{}: {stderr}", example.name));
        service.until_logged(request_id).await;
    }
}

#[tokio::test]
async fn every_example_waits_as_it_is_told_and_tries_again() {
    let database = Database::sqlite();
    database.seed().await;
    let limits = [("ORGD_RATE_LIMIT_ADMINISTRATOR", "1")];
    let service = Service::start_with(database.into(), &limits).await;
    let mut refusals = 0;
    for example in &EXAMPLES {
        let before = refusals;
        // Until it was over the limit, which a program on a slow machine need not be.
        for _ in 0..20 {
            service.database().reset().await;
            let (lines, code, stderr) = Program::start(example, &service, ADMINISTRATOR, 3).end();
            assert_eq!((lines.len(), code), (6, Some(0)), "{}: {lines:?} {stderr}", example.name);
            refusals = rate_limit_refusals(&service).await;
            if refusals > before {
                break;
            }
        }
        assert!(refusals > before, "{} was never over the limit", example.name);
    }
}

async fn rate_limit_refusals(service: &Service) -> u64 {
    let metrics = service.get_ops("/metrics").await;
    let name = "orgd_rate_limit_refusals_total{scope=\"principal\"} ";
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(name));
    value.unwrap().parse().unwrap()
}
