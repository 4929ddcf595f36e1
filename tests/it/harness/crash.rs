//! A PostgreSQL server that crashes as in a power cut, and starts again on what it had stored.

use std::{fs, io::Write, process};

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

/// The processes that a process has started, by the fourth word of `/proc/PID/stat`.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        // Gone meanwhile, where it cannot be read.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, words)| words);
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    processes.filter(is_child).collect()
}

/// Sends a signal by name.
pub fn kill(signal: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // Status 1: one of several had ended by itself.
    process::Command::new("kill").args(["-s", signal]).args(processes).output().unwrap();
}
