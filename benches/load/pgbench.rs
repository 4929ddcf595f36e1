//! The floor of an update in PostgreSQL: pgbench with the bare statement.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{histogram::Histogram, postgres, worker::Report};

/// A pgbench that runs.
pub struct Pgbench {
    child: Child,
    /// Has the script and the log.
    folder: TempDir,
}

impl Pgbench {
    /// Runs for at least so long.
    pub fn start(url: &str, organizations: u64, connections: u32, seconds: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "\\set id random(1, {organizations})\n\\set name random(1, 1000000000)\n\
             UPDATE organizations SET name = 'Organization ' || :name, version = version + 1 \
             WHERE id = :id;\n"
        );
        fs::write(folder.path().join("update.sql"), script).unwrap();
        let child = Command::new(postgres::binaries().join("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--file=update.sql", "--jobs=1", "--log"])
            .arg(format!("--client={connections}"))
            .arg(format!("--time={}", seconds.ceil()))
            .arg(url)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; what it found between the two times, as its log has it.
    pub fn finish(self, begin: OffsetDateTime, end: OffsetDateTime) -> Report {
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
        let (begin, end) = (begin.unix_timestamp_nanos(), end.unix_timestamp_nanos());
        let mut latencies = Histogram::new();
        let mut requests = 0;
        let log = log(self.folder.path());
        for line in log.lines() {
            // Client, number, latency in µs, script, and the time of its end in s and µs.
            let words: Vec<&str> = line.split(' ').collect();
            let word = |number: usize| words[number].parse::<u64>().unwrap();
            let ended = (i128::from(word(4)) * 1_000_000 + i128::from(word(5))) * 1000;
            if begin <= ended && ended < end {
                latencies.record(Duration::from_micros(word(2)));
            }
            requests += 1;
        }
        let seconds = (end - begin) as f64 / 1e9;
        Report { requests, ..Report::new(&latencies, seconds) }
    }
}

fn log(folder: &Path) -> String {
    let mut files = fs::read_dir(folder).unwrap().flatten();
    let log = files.find(|file| file.file_name().to_string_lossy().starts_with("pgbench_log"));
    fs::read_to_string(log.expect("pgbench writes a log").path()).unwrap()
}
