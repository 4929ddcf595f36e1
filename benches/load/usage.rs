//! What processes use, as Linux tells it in `/proc`.

use std::{fs, time::Instant};

use sha2::{Digest, Sha256};

/// Of the times in `/proc`: Linux's `USER_HZ`, the same on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process, in seconds.
pub fn cpu(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own)
}

/// Processor time of a process and of all its children, those that have ended too: a PostgreSQL
/// cluster's, given its postmaster.
pub fn cpu_of_family(parent: u32) -> f64 {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter_map(stat).filter(|stat| stat.parent == parent);
    let living: f64 = children.map(|stat| stat.own + stat.ended_children).sum();
    living + stat(parent).map_or(0.0, |stat| stat.own + stat.ended_children)
}

pub fn parent(pid: u32) -> u32 {
    stat(pid).expect("a process that runs").parent
}

/// Memory of a process that is in RAM, in MiB.
pub fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>();
    kib.unwrap_or(0.0) / 1024.0
}

/// Processor time of the whole machine, in seconds.
pub fn cpu_of_machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let words = stat.lines().next().unwrap().split_ascii_whitespace().skip(1);
    let ticks: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq; not what a hypervisor took.
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / TICKS_PER_SECOND
}

/// How fast a processor is just now: rounds of a fixed computation in a microsecond. Where a machine
/// is shared below its operating system, this changes, and nothing in `/proc` tells.
pub fn speed() -> f64 {
    const ROUNDS: u32 = 20_000;
    let started = Instant::now();
    let mut digest = Sha256::digest([]);
    for _ in 0..ROUNDS {
        digest = Sha256::digest(digest);
    }
    std::hint::black_box(digest);
    f64::from(ROUNDS) / started.elapsed().as_micros() as f64
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

/// None for a process that has ended.
fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second word is the program's name in parentheses, which may hold anything.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let word = |number: usize| words.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        parent: word(4)? as u32,
        own: (word(14)? + word(15)?) / TICKS_PER_SECOND,
        ended_children: (word(16)? + word(17)?) / TICKS_PER_SECOND,
    })
}
