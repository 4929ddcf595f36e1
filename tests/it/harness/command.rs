//! Commands of the real binary that end by themselves.

use std::{
    io::{self, Write},
    process::{self, Stdio},
};

use serde_json::Value;

/// The binary, without the settings that the tests' own environment may have.
fn binary() -> process::Command {
    binary_under(&[])
}

/// The same as the last argument of a command that becomes the binary in the end.
pub(super) fn binary_under(wrapper: &[&str]) -> process::Command {
    let words = [wrapper, &[env!("CARGO_BIN_EXE_orgd")]].concat();
    let mut command = process::Command::new(words[0]);
    command.args(&words[1..]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORGD_") {
            command.env_remove(name);
        }
    }
    // Tests that stop a service need not wait; one of them tests the waiting.
    command.env("ORGD_LAME_DUCK_TIME", "0s");
    command
}

/// Says what a test leaves out because it is not installed: past the runner, which keeps what a passed test prints.
pub fn not_run(what: &str) {
    let mut stderr = io::stderr();
    writeln!(stderr, "{what} is NOT run: it is not installed").unwrap();
}

/// Cargo, without what the cargo that runs the tests says of their package: the build script of ring runs
/// anew when that changes, and most crates would be built again, now and at the next build.
pub fn cargo() -> process::Command {
    let mut command = process::Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_of_tests = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| text.starts_with(of));
        if is_of_tests || text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
    command
}

/// What a command did.
pub struct Command {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Command {
    /// What it printed, as JSON; the command must have succeeded.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Runs `orgd` with these words over a database.
pub fn orgd(database_url: &str, words: &str) -> Command {
    orgd_with_input(database_url, words, "")
}

/// The same, with standard input.
pub fn orgd_with_input(database_url: &str, words: &str, input: &str) -> Command {
    run(&[("ORGD_DATABASE_URL", database_url)], words, input)
}

/// Runs `orgd` with these words and variables.
pub fn orgd_with(variables: &[(&str, &str)], words: &str) -> Command {
    run(variables, words, "")
}

/// The same, printing to what may not take it.
pub fn orgd_to(stdout: impl Into<Stdio>, variables: &[(&str, &str)], words: &str) -> Command {
    let mut command = binary();
    command.args(words.split(' ')).envs(variables.iter().copied()).stdin(Stdio::null());
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    answer(child)
}

fn answer(child: process::Child) -> Command {
    let output = child.wait_with_output().unwrap();
    Command {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(variables: &[(&str, &str)], words: &str, input: &str) -> Command {
    let mut child = binary()
        .args(words.split(' '))
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    answer(child)
}
