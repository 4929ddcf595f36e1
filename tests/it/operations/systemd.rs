//! `deploy/systemd`: what systemd is told, and what it says of the unit.

use std::{fs, os::unix::net::UnixDatagram, path::Path, process::Command};

use crate::harness::{ANY_PORT, Database, PATIENCE, SERVE, Service, not_run, orgd_with};

/// The units, and what each starts.
const UNITS: [(&str, &str); 2] = [("orgd", "serve"), ("orgd-gateway", "gateway")];

/// A service's exposure in tenths, by `systemd-analyze security`: 0 is none, 100 all.
const EXPOSURE_MAX: &str = "15";

fn unit(name: &str) -> String {
    text(&format!("deploy/systemd/{name}.service"))
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The drop-ins of a text, each from `[Service]` on.
fn drop_ins(text: &str) -> Vec<String> {
    let is_of_it = |line: &&str| line.contains('=');
    let after = text.split("[Service]\n").skip(1);
    let lines = after.map(|rest| rest.lines().take_while(is_of_it).collect::<Vec<_>>());
    lines.map(|lines| format!("[Service]\n{}\n", lines.join("\n"))).collect()
}

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
    let environment = [&environment[..], &[("ORGD_DATABASE_URL", database.url())]].concat();
    let service = Service::spawn(&SERVE, &environment);
    // `systemctl restart` comes back then, and the next instance may be restarted.
    let told = manager.until("READY=1");
    assert_eq!(service.get_ops("/readyz").await.status(), 200);
    // Another thread's message, before the other or after it.
    if !told.contains(&"STATUS=ready".to_owned()) {
        manager.until("STATUS=ready");
    }
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
    let settings = text("docs/CONFIG.md");
    let default = |variable: &str| -> u64 {
        let row = settings.lines().find(|line| line.contains(&format!("`{variable}`"))).unwrap();
        let value = row.split('|').nth(4).unwrap().trim().trim_matches('`');
        value.trim_end_matches('s').parse().unwrap()
    };
    for (name, command) in UNITS {
        let unit = unit(name);
        assert_eq!(value(&unit, "Type"), "notify");
        assert_eq!(value(&unit, "ExecStart"), format!("/usr/bin/orgd {command}"));
        let stop: u64 = value(&unit, "TimeoutStopSec").trim_end_matches('s').parse().unwrap();
        assert!(stop > default("ORGD_LAME_DUCK_TIME") + default("ORGD_DRAIN_DEADLINE"));
        let files: u64 = value(&unit, "LimitNOFILE").parse().unwrap();
        assert!(files > 3 * default("ORGD_CONNECTIONS_MAX"));
        // Else systemd gives up after five starts within ten seconds.
        let head = unit.split("\n[Service]\n").next().unwrap();
        assert_eq!(value(head, "StartLimitIntervalSec"), "0");
    }
    // Both are shut off alike.
    let rights = |name| {
        let unit = unit(name);
        let (_, rights) = unit.split_once("\nDynamicUser=yes\n").unwrap();
        let of_state = |line: &&str| line.contains("Directory");
        rights.lines().filter(|line| !of_state(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rights("orgd"), rights("orgd-gateway"));
}

/// What the unit says of the database holds where `orgd.env` and drop-ins say nothing, or nothing that systemd takes.
#[test]
fn the_units_own_database_is_never_a_new_one_and_gives_way_to_a_file_of_a_url() {
    let unit = unit("orgd");
    let own = value(&unit, "Environment");
    let (name, url) = own.split_once('=').unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let [file, path] =
        ["orgd.db", "url"].map(|name| folder.path().join(name).display().to_string());
    assert_eq!((name, url), ("ORGD_DATABASE_URL", "sqlite:///var/lib/orgd/orgd.db"));
    let here = format!("sqlite://{file}");
    let listen = SERVE.join(" ");
    let refused = orgd_with(&[(name, here.as_str())], &listen);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("there is no such file; end the URL with ?mode=rwc"));

    // The drop-in empties it; one that forgets to is told.
    fs::write(&path, "postgres://orgd@127.0.0.1:1/orgd").unwrap();
    let of_file = ("ORGD_DATABASE_URL_FILE", path.as_str());
    let read = orgd_with(&[(name, ""), of_file], &listen);
    assert!(read.stderr.contains("PostgreSQL at 127.0.0.1:1"), "{}", read.stderr);
    let forgotten = orgd_with(&[(name, here.as_str()), of_file], &listen);
    assert!(forgotten.stderr.contains("cannot be used with"), "{}", forgotten.stderr);
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let run = |words: &[&str]| Command::new("systemd-analyze").args(words).output();
    if run(&["--version"]).is_err() {
        return not_run("systemd-analyze");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let check = |words: &[&str]| {
        let output = run(words).unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{words:?}: {said:?}");
        said[1].clone()
    };
    for (name, _) in UNITS {
        // It looks for the binary, which is not installed here, and for its manual.
        let here = unit(name).replace("/usr/bin/orgd", env!("CARGO_BIN_EXE_orgd"));
        let here = here.lines().filter(|line| !line.starts_with("Documentation="));
        let path = folder.path().join(format!("{name}.service"));
        fs::write(&path, here.collect::<Vec<_>>().join("\n")).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(check(&["verify", "--man=no", path]), "");
        check(&["security", "--offline=true", &threshold, path]);
    }

    // The drop-ins of the page, and those of the unit's comments, which must be the same.
    let of_unit = unit("orgd").split("\n[Service]\n").nth(1).unwrap().replace("\n#   ", "\n");
    let of_page = drop_ins(&text("docs/DEPLOYMENT.md").replace("\n  ", "\n"));
    let of_unit = drop_ins(&of_unit);
    assert!(
        of_unit.len() == 2 && of_unit.iter().all(|one| of_page.contains(one)),
        "{of_unit:?} {of_page:?}"
    );
    let drop_in = folder.path().join("orgd.service.d/own.conf");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    let path = folder.path().join("orgd.service");
    for text in &of_page {
        fs::write(&drop_in, text).unwrap();
        assert_eq!(check(&["verify", "--man=no", path.to_str().unwrap()]), "", "{text}");
    }
    // It does look at them.
    fs::write(&drop_in, of_page[0].replace("[Service]\n", "")).unwrap();
    let said = check(&["verify", "--man=no", path.to_str().unwrap()]);
    assert!(said.contains("Assignment outside of section"), "{said}");
}
