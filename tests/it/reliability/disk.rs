//! Promise 3: a disk that is full, or fails, under SQLite.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    caller::{Addresses, Api, Caller, Outcome, Write},
    crashes::integrity,
    ledger::{assert_kept, stored},
    load::{Load, ORGANIZATIONS, Recorded},
};
use crate::harness::{Database, OWN, Service};

/// Updates that are acknowledged while all is well.
const UPDATES: usize = 50;
/// How long a fault may take to show.
const PATIENCE: Duration = Duration::from_secs(60);
/// Updates whose refusals are looked at.
const REFUSALS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_updates_and_loses_none() {
    fill_the_disk(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn a_disk_that_is_full_again_and_again_loses_no_update() {
    fill_the_disk(25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_refuses_updates_and_loses_none() {
    fail_the_disk(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn a_disk_that_fails_again_and_again_loses_no_update() {
    fail_the_disk(10).await;
}

async fn fill_the_disk(times: u32) {
    let disk = SmallDisk::start().await;
    let load = Load::start(Addresses::of(&disk.service));
    let mut recorded = Vec::new();
    for time in 0..times {
        load.acknowledges(UPDATES).await;
        disk.fill();
        recorded.extend(refusals(&disk.service, &format!("full-{time}")).await);
        assert_reads(&disk.service).await;
        disk.make_room();
        let healed = load.acknowledges(UPDATES).await;
        eprintln!("acknowledged again {healed:?} after there was room");
    }
    recorded.extend(load.stop().await);
    let database = disk.copy();
    assert_only_unavailable(&database, &recorded).await;
}

/// Each in turn: a failing fsync, failing writes, a write that finds no room, and all of them now and
/// then.
async fn fail_the_disk(times: u32) {
    let fiu_run = Command::new("fiu-run").output();
    fiu_run.expect("libfiu is needed: run `make test`, or install `fiu-utils`");
    let database = Arc::new(Database::sqlite());
    database.seed().await;
    let fifos = TempDir::new().unwrap();
    let fifo = fifos.path().join("fiu");
    let fifo = fifo.to_str().unwrap();
    let wrapper = ["fiu-run", "-x", "-f", fifo];
    let service = Service::start_under(&wrapper, database.clone(), &[]).await;
    let fiu = |command: &str| {
        let pid = service.pid().to_string();
        let done = Command::new("fiu-ctrl").args(["-c", command, "-f", fifo, &pid]).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (eio, enospc) = (5, 28);
    let faults = [
        ("posix/io/sync/fsync", eio, 1.0),
        ("posix/io/rw/pwrite", eio, 1.0),
        ("posix/io/rw/pwrite", enospc, 1.0),
        ("posix/io/rw/pwrite", eio, 0.2),
        ("posix/io/sync/fsync", eio, 0.2),
        ("posix/io/rw/pwrite/reduce", eio, 0.5),
    ];
    let load = Load::start(Addresses::of(&service));
    let mut recorded = Vec::new();
    for time in 0..times {
        for (index, (name, error, probability)) in faults.into_iter().enumerate() {
            load.acknowledges(UPDATES).await;
            fiu(&format!("enable_random name={name},probability={probability},failinfo={error}"));
            if name.ends_with("reduce") {
                // Less is written than was asked, which is no failure.
                load.acknowledges(UPDATES).await;
            } else {
                recorded.extend(refusals(&service, &format!("fault-{time}-{index}")).await);
                assert_reads(&service).await;
            }
            fiu(&format!("disable name={name}"));
            let healed = load.acknowledges(UPDATES).await;
            eprintln!("{name} {error} {probability}: acknowledged again after {healed:?}");
        }
    }
    recorded.extend(load.stop().await);
    drop(service);
    assert_only_unavailable(&database, &recorded).await;
}

/// Sends updates through both APIs until so many were refused.
async fn refusals(service: &Service, id: &str) -> Vec<Recorded> {
    let mut caller = Caller::default();
    let mut recorded = Vec::new();
    let started = Instant::now();
    let mut refused = 0;
    for turn in 0.. {
        assert!(started.elapsed() < PATIENCE, "no fault to be seen");
        let api = if turn % 2 == 0 { Api::Rest } else { Api::Grpc };
        let id = format!("{id}-{turn}");
        let write = Write { name: Some(id.clone()), id, organization: OWN, ..Write::default() };
        let outcome = caller.update(Addresses::of(service), api, &write).await;
        refused += usize::from(!matches!(outcome, Outcome::Done(..)));
        recorded.push(Recorded { write, outcome });
        if refused == REFUSALS {
            return recorded;
        }
    }
    unreachable!("the turns have no end")
}

async fn assert_reads(service: &Service) {
    for api in [Api::Rest, Api::Grpc] {
        let outcome = Caller::default().get(Addresses::of(service), api, OWN).await;
        assert!(matches!(outcome, Outcome::Done(..)), "{api:?}: {outcome:?}");
    }
}

/// Every update that is stored was acknowledged, and every other was told that the store is
/// unavailable, which both APIs say with a time to come back after.
async fn assert_only_unavailable(database: &Database, recorded: &[Recorded]) {
    let outcomes = assert_kept(database, recorded).await;
    assert_eq!(integrity(database).await, "ok");
    for api in ["REST 503 STORE_UNAVAILABLE", "gRPC Unavailable STORE_UNAVAILABLE"] {
        assert!(outcomes.contains_key(api), "{api}: {outcomes:?}");
    }
    assert!(outcomes.keys().all(|label| {
        ["done", "mismatch"].contains(&label.as_str()) || label.ends_with("STORE_UNAVAILABLE")
    }));
    let stored = stored(database, ORGANIZATIONS).await;
    let stored: usize = stored.iter().map(|stored| stored.entries.len() - 1).sum();
    assert_eq!(stored, outcomes["done"], "versions are as many as acknowledgements");
}

/// A service whose database is on a disk of 16 megabytes, which is more than SQLite's log ever has: a
/// tmpfs in a mount namespace of the service's own, which root may have, and everyone else together with a user namespace. It is gone with the
/// service, however the test ends.
struct SmallDisk {
    service: Service,
    folder: TempDir,
}

impl SmallDisk {
    async fn start() -> Self {
        let seeded = TempDir::new().unwrap();
        Database::sqlite_in(seeded.path()).seed().await;
        let folder = TempDir::new().unwrap();
        let script = "mount -t tmpfs -o size=16m tmpfs \"$1\" && cp \"$2\"/* \"$1\" && shift 2 && \
                      exec \"$@\"";
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let wrapper = [
            "unshare",
            if is_root { "-m" } else { "-Urm" },
            "sh",
            "-c",
            script,
            "sh",
            folder.path().to_str().unwrap(),
            seeded.path().to_str().unwrap(),
        ];
        let database = Arc::new(Database::sqlite_in(folder.path()));
        let service = Service::start_under(&wrapper, database, &[]).await;
        Self { service, folder }
    }

    /// The disk, as the service's processes see it.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.service.pid()));
        root.join(self.folder.path().strip_prefix("/").unwrap())
    }

    /// Fills the disk, but for the last bytes.
    fn fill(&self) {
        let full = fs::write(self.path().join("filler"), vec![1; 32 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    /// The database as it is on the disk, in a folder that others can see. Ends the service.
    fn copy(self) -> Database {
        let files = copy_files(&self.path());
        drop(self.service);
        Database::sqlite_of(files)
    }
}

fn copy_files(from: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in ["orgd.db", "orgd.db-wal"] {
        fs::copy(from.join(file), copy.path().join(file)).unwrap();
    }
    copy
}
