//! `deploy/systemd`: what systemd is told, and what it says of the unit.

use std::{fs, os::unix::net::UnixDatagram, process::Command, sync::Arc};

use crate::harness::{ANY_PORT, Database, PATIENCE, Service};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/orgd.service");

/// A service's exposure in tenths, by `systemd-analyze security`: 0 is none, 100 all.
const EXPOSURE_MAX: &str = "15";

/// The value of a key of the unit.
fn value(unit: &str, key: &str) -> String {
    let prefix = format!("{key}=");
    let line = unit.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

/// A socket on which a process tells what systemd is told.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").to_str().unwrap().to_owned()
    }

    /// Reads up to a message, and answers those before it.
    fn until(&self, message: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let mut bytes = [0; 1024];
            let length = self.socket.recv(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("{message}: {error}, {before:?}"));
            let told = String::from_utf8(bytes[..length].to_vec()).unwrap();
            if told.trim_end() == message {
                return before;
            }
            before.push(told.trim_end().to_owned());
        }
    }
}

#[tokio::test]
async fn systemd_is_told_that_a_service_listens_is_ready_lives_and_stops() {
    let manager = Manager::new();
    let (path, database) = (manager.path(), Database::sqlite());
    database.seed().await;
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "300000")];
    let service = Service::start_with(Arc::new(database), &environment).await;
    manager.until("READY=1");
    manager.until("STATUS=ready");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    service.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(service.ended().await.code(), Some(0));
}

/// A start timeout that ended a gateway because of its service would help nobody.
#[tokio::test]
async fn a_gateway_without_its_service_has_started_and_is_not_ready() {
    let manager = Manager::new();
    let path = manager.path();
    let environment = [("NOTIFY_SOCKET", path.as_str())];
    let words = [
        "gateway",
        "--upstream",
        "http://127.0.0.1:1",
        "--http-addr",
        ANY_PORT,
        "--ops-addr",
        ANY_PORT,
    ];
    let service = Service::spawn(&words, &environment);
    let before = manager.until("READY=1");
    assert!(!before.contains(&"STATUS=ready".to_owned()), "{before:?}");
    drop(service);
}

#[test]
fn the_unit_waits_longer_than_a_stop_takes_and_names_a_binary_that_notifies() {
    let unit = fs::read_to_string(UNIT).unwrap();
    assert_eq!(value(&unit, "Type"), "notify");
    assert_eq!(value(&unit, "ExecStart"), "/usr/bin/orgd serve");
    let stop: u64 = value(&unit, "TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    let settings =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIG.md")).unwrap();
    let default = |variable: &str| -> u64 {
        let row = settings.lines().find(|line| line.contains(&format!("`{variable}`"))).unwrap();
        let value = row.split('|').nth(4).unwrap().trim().trim_matches('`');
        value.trim_end_matches('s').parse().unwrap()
    };
    assert!(stop > default("ORGD_LAME_DUCK_TIME") + default("ORGD_DRAIN_DEADLINE"));
    let files: u64 = value(&unit, "LimitNOFILE").parse().unwrap();
    assert!(files > 3 * default("ORGD_CONNECTIONS_MAX"));
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let run = |words: &[&str]| Command::new("systemd-analyze").args(words).output();
    if run(&["--version"]).is_err() {
        return eprintln!("systemd-analyze is NOT run: it is not installed");
    }
    // It looks for the binary, which is not installed here, and for its manual.
    let unit = fs::read_to_string(UNIT).unwrap();
    let here = unit
        .replace("/usr/bin/orgd", env!("CARGO_BIN_EXE_orgd"))
        .replace("Documentation=man:orgd(1)\n", "");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("orgd.service");
    fs::write(&path, here).unwrap();
    let path = path.to_str().unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    for words in
        [&["verify", "--man=no", path][..], &["security", "--offline=true", &threshold, path]]
    {
        let output = run(words).unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{words:?}: {said:?}");
        assert!(words[0] != "verify" || said[1].is_empty(), "{said:?}");
    }
}
