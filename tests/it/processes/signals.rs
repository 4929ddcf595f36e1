//! Signals, as supervisors, terminals and log rotation send them to a process that serves.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::harness::{ANY_PORT, Database, LOGGED, OWN, SERVE, Service, USER, interpreter};

#[tokio::test]
async fn other_signals_are_ignored_and_stop_signals_drain() {
    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    let demo_words = ["demo", "--grpc-addr", ANY_PORT, "--http-addr", ANY_PORT];
    let demo = Service::spawn(&[&demo_words[..], &["--ops-addr", ANY_PORT]].concat(), &[LOGGED]);
    for process in [gateway, service, demo] {
        for (signal, said) in [
            ("HUP", "SIGHUP: there is no settings file to read again"),
            ("ALRM", "\"signal\":\"SIGALRM\""),
            ("USR1", "\"signal\":\"SIGUSR1\""),
            ("USR2", "\"signal\":\"SIGUSR2\""),
            // Ignored as in every program; PIPE by Rust.
            ("PIPE", ""),
            ("WINCH", ""),
            ("CONT", ""),
            ("URG", ""),
        ] {
            process.signal(signal);
            process.until_logged(said).await;
            process.assert_serves().await;
        }
        // A request under way is answered.
        let mut stream = tokio::net::TcpStream::connect(process.http_addr()).await.unwrap();
        let head = format!(
            "PUT /v1/organizations/{OWN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
             Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        process.assert_serves().await;
        process.signal("QUIT");
        process.until_logged("stopping: no new requests").await;
        // Still another wish than to end at once.
        process.signal("HUP");
        process.signal("USR1");
        stream.write_all(b"\"name\": \"Late\"}").await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        process.until_logged("stopped: every request was answered").await;
        assert_eq!(process.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn hup_reads_the_logs_filter_again() {
    let database = Database::sqlite();
    database.seed().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("orgd.toml");
    let write = |filter: &str| {
        let text = format!("log = \"{filter}\"\ndatabase_url = \"{}\"\n", database.url());
        fs::write(&path, text).unwrap();
    };
    write("info,orgd::request=off");
    let config = [("ORGD_CONFIG", path.to_str().unwrap())];
    let service = Service::spawn(&SERVE, &config);
    service.until_ready().await;
    service.assert_serves().await;
    write("info");
    service.signal("HUP");
    service.until_logged("the log's filter was read again").await;
    assert!(!service.log().contains("\"orgd::request\""), "{}", service.log());
    service.assert_serves().await;
    service.until_logged("\"orgd::request\"").await;
    for (text, sentence) in [
        ("log = \"inof\"\n", "inof is neither a level"),
        ("log = \"postgres://odd:x,StormPetrel=,x@db\"\n", "is no filter"),
        ("database_url = \"postgres://odd:StormPetrel@db\n", "is not TOML: line 1"),
    ] {
        fs::write(&path, text).unwrap();
        service.signal("HUP");
        service.until_logged(sentence).await;
        assert!(!service.log().contains("StormPetrel"), "{}", service.log());
    }
    // A file that does not come holds up nothing.
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    service.signal("HUP");
    service.assert_serves().await;
    service.signal("TERM");
    service.until_logged("stopped: every request was answered").await;
    assert_eq!(service.ended().await.code(), Some(0));
    // Variables come before the file, then as at the start.
    fs::remove_file(&path).unwrap();
    write("info,orgd::request=off");
    let service = Service::spawn(&SERVE, &[&config[..], &[("ORGD_LOG", "info")]].concat());
    service.until_ready().await;
    service.signal("HUP");
    service.until_logged("the log's filter was read again").await;
    service.assert_serves().await;
    service.until_logged("\"orgd::request\"").await;
}

/// Runs its arguments on a terminal of their own, sends SIGHUP once they listen, and then closes it. Whoever waits in vain
/// is ended by an alarm.
const TERMINAL: &str = "
import os, pty, signal, sys
signal.alarm(120)
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b''
def until(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 65536)
until(b'listening')
os.kill(pid, signal.SIGHUP)
until(b'to read again')
os.kill(pid, 0)
os.close(terminal)
print(os.waitpid(pid, 0)[1])
";

#[test]
fn closing_the_terminal_drains_and_ends_the_process() {
    for command in ["demo", "serve", "gateway"] {
        let folder = TempDir::new().unwrap();
        let mut python = python(TERMINAL);
        python.args([env!("CARGO_BIN_EXE_orgd"), command, "--http-addr", ANY_PORT]);
        python.args(["--ops-addr", ANY_PORT]).current_dir(&folder);
        if command == "gateway" {
            python.args(["--upstream", "http://127.0.0.1:1"]);
        } else {
            python.args(["--grpc-addr", ANY_PORT]);
        }
        let output = python.envs([("ORGD_LAME_DUCK_TIME", "0s"), LOGGED]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // By its own will: a signal would be the number.
        assert_eq!(printed.trim(), "0", "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn python(program: &str) -> Command {
    let mut python = interpreter();
    python.args(["-c", program]).stdin(Stdio::null());
    python
}

/// What does one thing ends at once, as every program does, and leaves nothing that is half.
#[tokio::test]
async fn a_client_command_ends_at_once_at_a_signal() {
    let service = Service::over_sqlite(&[]).await;
    for (signal, number) in [("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15)] {
        // The tests' parent may ignore some signals, as `nohup` does, and children inherit that.
        let mut child = Command::new("env")
            .args(["--default-signal", env!("CARGO_BIN_EXE_orgd")])
            .args(["organization", "changes", &OWN.to_string(), "--follow", "--json"])
            .env("ORGD_SERVER", format!("http://{}", service.grpc_addr()))
            .env("ORGD_TOKEN", USER)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It follows once it has printed the first.
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert!(line.contains("\"version\":1"), "{line}");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(number));
    }
}

/// Prints what its arguments print on a terminal.
const ON_TERMINAL: &str = "import pty, sys; pty.spawn(sys.argv[1:])";

#[test]
fn log_lines_have_colours_as_the_environment_asks() {
    for (variables, has_colours) in [
        (&[][..], true),
        (&[("NO_COLOR", "1")][..], false),
        (&[("NO_COLOR", "1"), ("CLICOLOR", "1")][..], false),
        (&[("CLICOLOR", "0")][..], false),
        (&[("TERM", "dumb")][..], false),
    ] {
        let folder = TempDir::new().unwrap();
        let mut python = python(ON_TERMINAL);
        python.args([env!("CARGO_BIN_EXE_orgd"), "migrate"]).current_dir(&folder);
        python.env("TERM", "xterm").env("ORGD_LOG", "info").envs(variables.iter().copied());
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            if !variables.iter().any(|(set, _)| *set == name) {
                python.env_remove(name);
            }
        }
        let output = python.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        // Lines of the log, and not the table, whose heading has its colours already.
        let lines = text.lines().filter(|line| line.contains(" INFO"));
        let lines = lines.collect::<Vec<_>>();
        assert!(!lines.is_empty(), "{text}");
        let coloured = lines.iter().filter(|line| line.contains('\u{1b}')).count();
        assert_eq!(coloured, if has_colours { lines.len() } else { 0 }, "{variables:?}: {text}");
    }
}
