//! A Docker Engine of one's own, in a network of its own: the ports that it publishes are nobody else's, and it touches no
//! rule of the machine's. It ends with the process that started it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{cargo, interpreter};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What Cargo builds in the image: what the tests have built, so that its dependencies are there already. The example is
/// named because it makes the features of dependencies those of the tests.
pub const BUILD: &str = "--profile=test --workspace --bin=orgd --example=update";

pub struct Engine {
    /// Ends the engine when its standard input closes.
    supervisor: Child,
    folder: TempDir,
}

impl Engine {
    /// Why no engine can run here, in words.
    pub fn start() -> Result<Self, String> {
        let is_there = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
            folders.any(|folder| folder.join(program).exists())
        };
        let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
        if uid != 0 {
            return Err("only root can start an engine".to_owned());
        }
        for program in ["dockerd", "docker-compose", "dpkg-query", "prometheus", "unshare", "ip"] {
            if !is_there(program) {
                return Err(format!("there is no {program}"));
            }
        }
        let folder = tempfile::Builder::new().prefix("orgd-engine-").tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // No quotes are needed: the words after the script are its arguments.
        let script = "trap '' INT; ip link set lo up; \"$@\" & read -r end; kill $!; wait";
        let supervisor = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", script, "sh", "dockerd", "--data-root"])
            .arg(folder.path().join("data"))
            .arg("--exec-root")
            .arg(folder.path().join("exec"))
            .arg("--pidfile")
            .arg(folder.path().join("pid"))
            .arg("--host")
            .arg(host(folder.path()))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Self { supervisor, folder };
        engine.until_started()?;
        Ok(engine)
    }

    #[expect(clippy::disallowed_methods, reason = "nothing else waits for this thread")]
    fn until_started(&self) -> Result<(), String> {
        let started = Instant::now();
        while !self.command("docker").arg("version").output().unwrap().status.success() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
            let is_over = log.contains("failed to start daemon") || log.contains("unshare:");
            if is_over || started.elapsed() > START_TIMEOUT {
                return Err(format!("the engine does not start:\n{log}"));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// A program that finds the engine.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", host(self.folder.path()))
            // The builder that needs no plug-in.
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0")
            .env("COMPOSE_PROJECT_NAME", "orgd")
            .env_remove("ORGD_OTLP_ENDPOINT")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    pub fn docker(&self, words: &[&str]) -> String {
        succeeded(words, self.command("docker").args(words).output().unwrap())
    }

    pub fn compose(&self, words: &[&str]) -> String {
        succeeded(words, self.composing(words).output().unwrap())
    }

    pub fn composing(&self, words: &[&str]) -> Command {
        let mut command = self.command("docker-compose");
        command.args(["--profile", "observability"]).args(words);
        command
    }

    /// Curl where the published ports are. The status is the last line of what it prints.
    pub fn curl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.supervisor.id()))
            .args(["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}"])
            .args(words);
        command
    }

    /// Makes an image that stands in for one of a registry, of what is installed here.
    pub fn stand_in(&self, image: &str, words: &[&str], changes: &[String]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/stand_ins.py");
        let mut files =
            interpreter().arg(script).args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut import = self.command("docker");
        import.arg("import");
        for change in changes {
            import.args(["--change", change]);
        }
        let imported = import.args(["-", image]).stdin(files.stdout.take().unwrap()).output();
        succeeded(&[image], imported.unwrap());
        assert!(files.wait().unwrap().success(), "{image}");
    }

    /// The stand-in for the image of Rust: this machine's, with the dependencies as they are built.
    pub fn stand_in_for_rust(&self, image: &str) {
        let text = |mut command: Command| {
            let output = command.output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "sysroot"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let toolchain = text(rustc);
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap();
        let home = home.to_str().unwrap();
        let units = units();
        let mut words = vec!["rust", &toolchain, home, env!("CARGO_MANIFEST_DIR")];
        words.extend(units.iter().map(String::as_str));
        let changes = [
            format!("ENV PATH={toolchain}/bin:/usr/local/bin:/usr/bin:/bin"),
            format!("ENV CARGO_HOME={home} CARGO_NET_OFFLINE=true CARGO_INCREMENTAL=0"),
        ];
        self.stand_in(image, &words, &changes);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

fn succeeded(words: &[&str], output: Output) -> String {
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{words:?}: {}{}", texts[0], texts[1]);
    texts.into_iter().next().unwrap()
}

/// What Cargo calls the crates of registries that are built for `BUILD`: the ends of their files' names.
fn units() -> BTreeSet<String> {
    let mut build = cargo()
        .args(["build", "--locked", "--quiet", "--message-format=json"])
        .args(BUILD.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut units = BTreeSet::new();
    for line in BufReader::new(build.stdout.take().unwrap()).lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let is_ours = |id: &str| !id.starts_with("registry+");
        if message["package_id"].as_str().is_none_or(is_ours) {
            continue;
        }
        let files = message["filenames"].as_array().into_iter().flatten();
        for path in files.chain(message.get("out_dir")).filter_map(Value::as_str) {
            let mut path = Path::new(path);
            if path.ends_with("out") || path.to_string_lossy().contains("/build/") {
                path = path.parent().unwrap();
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            units.insert(name.rsplit('-').next().unwrap().to_owned());
        }
    }
    assert!(build.wait().unwrap().success());
    units
}
