//! The memory of the processes under an abuse: at its start, at its highest, and afterwards.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::harness::{Service, offender::memory};

/// How near memory must come again to what it was.
const BACK_WITHIN_MEGABYTES: f64 = 30.0;
const BACK_AFTER: Duration = Duration::from_secs(60);
const SAMPLES_EVERY: Duration = Duration::from_millis(100);

struct Process {
    name: &'static str,
    start: f64,
    peak: f64,
    after: f64,
}

/// All in MB that are resident.
pub struct Memory {
    processes: Vec<Process>,
    back_after: Duration,
}

fn megabytes(service: &Service) -> f64 {
    f64::from(u32::try_from(memory(service, "VmRSS")).unwrap()) / 1024.0
}

impl Memory {
    /// What the processes hold now.
    pub fn start(stage: &Stage) -> Self {
        let process = |(name, service)| {
            let start = megabytes(service);
            Process { name, start, peak: start, after: start }
        };
        Self { processes: stage.processes().map(process).collect(), back_after: Duration::ZERO }
    }

    fn sample(&mut self, stage: &Stage) {
        for (process, (_, service)) in self.processes.iter_mut().zip(stage.processes()) {
            process.after = megabytes(service);
            process.peak = process.peak.max(process.after);
        }
    }

    /// Looks at it again and again while something goes on.
    pub async fn beside<T>(&mut self, stage: &Stage, other: impl Future<Output = T>) -> T {
        let sampling = async {
            loop {
                self.sample(stage);
                sleep(SAMPLES_EVERY).await;
            }
        };
        tokio::select! {
            done = other => done,
            () = sampling => panic!("it has no end"),
        }
    }

    /// Waits until it is what it was, for as long as that may take.
    pub async fn settle(&mut self, stage: &Stage) {
        let start = Instant::now();
        loop {
            self.sample(stage);
            self.back_after = start.elapsed();
            if self.left() < BACK_WITHIN_MEGABYTES || self.back_after > BACK_AFTER {
                return;
            }
            sleep(SAMPLES_EVERY).await;
        }
    }

    /// By how much the process that grew most had grown at its highest.
    pub fn growth(&self) -> f64 {
        self.most(|process| process.peak - process.start)
    }

    /// By how much one is still larger than it was.
    fn left(&self) -> f64 {
        self.most(|process| process.after - process.start)
    }

    fn most(&self, of: impl Fn(&Process) -> f64) -> f64 {
        self.processes.iter().map(of).fold(0.0, f64::max)
    }

    pub fn is_back(&self) -> bool {
        self.left() < BACK_WITHIN_MEGABYTES
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Process { name, start, peak, after } in &self.processes {
            let (peak, after) = (peak - start, after - start);
            write!(formatter, "{name} {start:.0} MB, at most +{peak:.0}, then +{after:.0}; ")?;
        }
        write!(formatter, "looked at for {:.1?} afterwards", self.back_after)
    }
}
