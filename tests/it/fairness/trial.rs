//! A trial measures bystanders alone and beside an abuse, and what the abuse leaves behind.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    abuser::{Abuse, Abuser},
    bystanders::{Bystanders, Calls, Failures},
    memory::Memory,
    stage::Stage,
};
use crate::harness::Database;

/// How long bystanders are measured, alone and beside an abuse.
const ALONE: Duration = Duration::from_secs(2);
const BESIDE: Duration = Duration::from_secs(4);
/// How long an abuse goes on before that.
const BEFORE: Duration = Duration::from_secs(1);
/// Others share the machine and may spoil a round: the best counts.
const ROUNDS: usize = 5;
/// By how much the median of an honest caller may be longer.
const TIMES_MAX: u32 = 3;
/// What is shorter alone counts as so long: less is noise, and the work of a binary that is not optimized.
const ALONE_MIN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5 } else { 2 });
/// The kinds of calls of which that is asked; of others it is asked that they are answered.
pub const HONEST: [&str; 4] = ["REST PUT", "REST GET", "gRPC Update", "gRPC Get"];

/// By how many MB memory may grow.
#[derive(Clone, Copy)]
pub enum Caller {
    /// A caller without a credential.
    Nobody,
    OnePrincipal,
}

impl Caller {
    fn growth_max(self) -> f64 {
        match self {
            Self::Nobody => 100.0,
            Self::OnePrincipal => 150.0,
        }
    }
}

/// How an abuse is tried.
pub struct Trial<'a> {
    stage: &'a Stage,
    what: String,
    caller: Caller,
    before: Duration,
    beside: Duration,
}

impl<'a> Trial<'a> {
    pub fn new(stage: &'a Stage, what: &str) -> Self {
        let what = format!("over {}: {what}", stage.service.database().kind());
        Self { stage, what, caller: Caller::OnePrincipal, before: BEFORE, beside: BESIDE }
    }

    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    /// The abuse goes on for so long, and longer than others do before anything is measured.
    pub fn lasting(mut self, before: Duration, beside: Duration) -> Self {
        (self.before, self.beside) = (before, beside);
        self
    }

    /// Bystanders must hardly notice.
    pub async fn assert_fair(self, abusers: impl Fn() -> Vec<Abuser>) {
        self.assert_fair_beside(abusers, async || Vec::new()).await;
    }

    /// The same, and somebody does something meanwhile that answers what went wrong.
    pub async fn assert_fair_beside(
        self,
        abusers: impl Fn() -> Vec<Abuser>,
        meanwhile: impl AsyncFn() -> Vec<String>,
    ) {
        // What memory was before any round: none may leave behind what the next would begin with.
        let mut memory = None;
        let mut unfair = Vec::new();
        for round in 1..=ROUNDS {
            let title = format!("{}, round {round}", self.what);
            let faults = Box::pin(self.round(&title, &mut memory, abusers(), &meanwhile)).await;
            let grown = memory.as_ref().map(|memory| self.grown(memory)).unwrap_or_default();
            assert!(grown.is_empty(), "{title}: {grown:#?}, and {faults:#?}");
            if faults.is_empty() {
                return;
            }
            eprintln!("  this was not fair: {faults:#?}");
            unfair.push((title, faults));
        }
        panic!("{unfair:#?}");
    }

    async fn round(
        &self,
        title: &str,
        memory: &mut Option<Memory>,
        abusers: Vec<Abuser>,
        meanwhile: &impl AsyncFn() -> Vec<String>,
    ) -> Vec<String> {
        // After a round that was not fair, it may not be.
        for (_, process) in self.stage.processes() {
            process.until_ready().await;
        }
        let bystanders = Bystanders::of(self.stage);
        bystanders.beside(sleep(ALONE / 4)).await;
        let (alone, ()) = bystanders.beside(sleep(ALONE)).await;
        let memory = memory.get_or_insert_with(|| Memory::start(self.stage));
        let abuse = Abuse::start(abusers);
        let trying = async {
            sleep(self.before).await;
            let meanwhile = async { tokio::join!(sleep(self.beside), meanwhile()).1 };
            Box::pin(bystanders.beside(meanwhile)).await
        };
        let (beside, mut faults) = memory.beside(self.stage, trying).await;
        let answered = abuse.stop().await;
        memory.settle(self.stage).await;
        eprintln!("{title}\n  abusers: {answered}\n  memory: {memory}");
        faults.extend(compare(&alone, &beside));
        faults
    }

    /// What memory did that it may not. That is not chance, so no other round follows.
    fn grown(&self, memory: &Memory) -> Vec<String> {
        let mut faults = Vec::new();
        let (growth, most) = (memory.growth(), self.caller.growth_max());
        if growth >= most {
            faults.push(format!("memory grew by {growth:.0} MB, and may by {most:.0} MB"));
        }
        if !memory.is_back() {
            faults.push(format!("memory stays: {memory}"));
        }
        faults
    }
}

/// Prints both, and answers what is wrong with the second.
pub fn compare(alone: &Calls, beside: &Calls) -> Vec<String> {
    let mut faults = Vec::new();
    for kind in alone.kinds() {
        let print = |calls: &Calls| {
            let [median, p99] = [50, 99].map(|hundredths| calls.within(kind, hundredths));
            let (median, p99) = (median.unwrap_or_default(), p99.unwrap_or_default());
            format!("median {median:.1?}, p99 {p99:.1?} of {}", calls.count(kind))
        };
        eprintln!("  {kind}: alone {}; beside {}", print(alone), print(beside));
        let most = TIMES_MAX * alone.within(kind, 50).unwrap_or_default().max(ALONE_MIN);
        match beside.within(kind, 50) {
            None => faults.push(format!("{kind}: never answered")),
            Some(median) if HONEST.contains(&kind) && median > most => {
                faults.push(format!("{kind}: the median is {median:.1?}, and may be {most:.1?}"));
            }
            Some(_) => {}
        }
    }
    let failures = [("alone", alone), ("beside", beside)];
    for (when, calls) in failures.iter().filter(|(_, calls)| !calls.failures.is_empty()) {
        eprintln!("  not answered {when}: {}", Failures(&calls.failures));
        faults.push(format!("not answered {when}: {}", Failures(&calls.failures)));
    }
    faults
}

/// What a trial finds where there is nothing to find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_without_an_abuse_finds_no_harm() {
    for is_gateway in [false, true] {
        let stage = if is_gateway {
            Stage::with_gateway(Database::sqlite(), &[]).await
        } else {
            Stage::over(Database::sqlite(), &[]).await
        };
        let trial = Trial::new(&stage, "no abuse").lasting(Duration::ZERO, ALONE);
        trial.assert_fair(Vec::new).await;
    }
}
