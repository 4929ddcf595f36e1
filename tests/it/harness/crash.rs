//! A PostgreSQL server that crashes as in a power cut, and starts again on what it had stored.

use std::{
    fs,
    io::Write,
    process,
    thread::sleep,
    time::{Duration, Instant},
};

use super::Cluster;

impl Cluster {
    /// Ends every process of the server with SIGKILL, at once. What it had stored stays.
    pub fn crash(&mut self) {
        let lock = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let postmaster: u32 = lock.lines().next().unwrap().parse().unwrap();
        // Stopped first, so that it neither starts others nor tells them to end.
        kill("STOP", &[postmaster]);
        let processes = [children(postmaster), vec![postmaster]].concat();
        kill("KILL", &processes);
        until_ended(&processes);
        let mut supervisor = self.supervisor.take().expect("the server runs");
        // Anything but the end of its input: the folder is needed.
        writeln!(supervisor.stdin.take().unwrap(), "keep").unwrap();
        supervisor.wait().unwrap();
    }

    /// Starts the server again after [`Cluster::crash`], on the same port.
    pub fn restart(&mut self) {
        assert!(self.supervisor.is_none(), "the server has not crashed");
        self.serve();
    }
}

/// Waits until processes that were killed hold nothing any more, such as shared memory.
#[expect(clippy::disallowed_methods, reason = "a crash is not waited for by other tasks")]
fn until_ended(processes: &[u32]) {
    let started = Instant::now();
    // Whoever has ended and was not waited for is a zombie.
    let is_left = |process: &u32| !matches!(state(*process).as_deref(), None | Some("Z" | "X"));
    while processes.iter().any(is_left) {
        assert!(started.elapsed() < Duration::from_secs(30), "{processes:?} do not end");
        sleep(Duration::from_millis(5));
    }
}

/// What `/proc/PID/stat` has after the name, in parentheses, of a process; none of one that is gone.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, words) = stat.rsplit_once(')')?;
    Some(words.split_whitespace().map(str::to_owned).collect())
}

fn state(process: u32) -> Option<String> {
    stat(process)?.into_iter().next()
}

/// The processes that a process has started.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        stat(*process).is_some_and(|words| words.get(1) == Some(&parent.to_string()))
    };
    processes.filter(is_child).collect()
}

/// Sends a signal by name.
pub fn kill(signal: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // Status 1: one of several had ended by itself.
    process::Command::new("kill").args(["-s", signal]).args(processes).output().unwrap();
}
