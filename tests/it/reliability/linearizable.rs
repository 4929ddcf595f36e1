//! Promise 6: what callers saw under faults has an order in which each saw the truth.
//!
//! Callers read one organization and change it by compare-and-set, through two instances, while the
//! connections to the database break. The history of each organization is given to stateright's
//! tester. An update whose outcome is unknown may have been done at any time since, or not: where the
//! change log has it, it is in flight to the end of the history, and has to fit in as the log says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    caller::{Addresses, Api, Caller, Outcome, Write},
    ledger::{Entry, stored},
};
use crate::harness::{Database, Fault, Proxy, Service};

/// Callers of one organization, and calls of each. The tester's search is exponential at worst.
const CALLERS: usize = 4;
const CALLS: usize = 8;
/// What happens, and how often it did.
type Seen = BTreeMap<&'static str, usize>;
/// How many rounds more there are at the most until all has happened that can: when faults come is chance,
/// and another one on a slow machine.
const MORE: usize = 20;
/// How long the search of a history may take; milliseconds, unless it has no order.
const SEARCH: Duration = Duration::from_secs(60);

/// An organization as docs/API.md has it: a name, and a version that each change counts up.
#[derive(Clone, Debug)]
struct Model {
    version: i64,
    name: String,
}

#[derive(Clone, Debug)]
enum Op {
    Read,
    /// Sets the name; where a version is given, only at that.
    Write(String, Option<i64>),
}

impl SequentialSpec for Model {
    type Op = Op;
    type Ret = Outcome;

    fn invoke(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write(_, Some(version)) if *version != self.version => {
                return Outcome::Mismatch(self.version);
            }
            Op::Write(name, _) => {
                self.version += 1;
                self.name.clone_from(name);
            }
            Op::Read => {}
        }
        Outcome::Done(self.version, self.name.clone())
    }
}

/// What happened, in the order in which it was seen. A caller is another one after an unknown outcome.
#[derive(Clone, Debug)]
enum Event {
    Invoke(usize, Op),
    Return(usize, Outcome),
}

type History = Arc<Mutex<Vec<Event>>>;

/// Whether a history from this first state on is linearizable.
async fn is_linearizable(first: Model, history: Vec<Event>) -> bool {
    let (found, search) = oneshot::channel();
    let search_all = move || {
        let mut tester = LinearizabilityTester::new(first);
        for event in history {
            match event {
                Event::Invoke(caller, op) => tester.on_invoke(caller, op),
                Event::Return(caller, outcome) => tester.on_return(caller, outcome),
            }
            .unwrap();
        }
        let _ = found.send(tester.is_consistent());
    };
    // Not a task: the test's runtime could not end before it.
    std::thread::spawn(search_all);
    tokio::time::timeout(SEARCH, search).await.expect("the search ends").unwrap()
}

/// One caller's calls. Its numbers are those that are its index more than a multiple of `CALLERS`.
async fn call(index: usize, instances: Vec<Addresses>, id: i64, round: usize, history: History) {
    let mut caller = Caller::default();
    let mut number = index;
    let mut version = None;
    let note = |event| history.lock().unwrap().push(event);
    for turn in 0..CALLS {
        // To the other instance after an unknown outcome, which may mean that this one has ended.
        let addresses = instances[(index + number / CALLERS) % instances.len()];
        let api = if (index + turn).is_multiple_of(2) { Api::Rest } else { Api::Grpc };
        let name = format!("r{round}-c{index}-t{turn}");
        let op = match (turn + index) % 4 {
            0 => Op::Read,
            // Now and then one that changes whatever there is.
            1 if turn > CALLS / 2 => Op::Write(name, None),
            _ => version.map_or(Op::Read, |version| Op::Write(name, Some(version))),
        };
        note(Event::Invoke(number, op.clone()));
        let outcome = match op {
            Op::Read => caller.get(addresses, api, id).await,
            Op::Write(name, version) => {
                let request_id = name.clone();
                let write = Write {
                    id: request_id,
                    organization: id,
                    name: Some(name),
                    version,
                    ..Write::default()
                };
                caller.update(addresses, api, &write).await
            }
        };
        match &outcome {
            Outcome::Done(now, _) | Outcome::Mismatch(now) => {
                version = Some(*now);
                note(Event::Return(number, outcome));
            }
            // Another caller from now on.
            Outcome::Unknown(_) => number += CALLERS,
            Outcome::Refused(text) => panic!("{text}"),
        }
    }
}

/// The organizations of a round. Each has one history: what a round has left in flight may be done in
/// the next.
fn organizations(round: usize) -> [i64; 2] {
    let first = 1000 + 2 * i64::try_from(round).unwrap();
    [first, first + 1]
}

async fn add_organizations(database: &Database, rounds: usize) {
    database.seed().await;
    let [first, _] = organizations(0);
    let [_, last] = organizations(rounds - 1);
    database.add_organizations(first, last).await;
}

/// Histories of two organizations at a time through these instances, while `disturb` goes on; each is
/// checked, and what is in it is counted.
async fn one_round(
    round: usize,
    seen: &mut Seen,
    database: &Database,
    instances: &[Addresses],
    disturb: impl AsyncFn(usize),
) {
    let mut calls = JoinSet::new();
    let mut histories = Vec::new();
    for id in organizations(round) {
        let first = Model { version: 1, name: database.name(id).await };
        let history = History::default();
        for index in 0..CALLERS {
            calls.spawn(call(index, instances.to_vec(), id, round, history.clone()));
        }
        histories.push((id, first, history));
    }
    let disturbing = async {
        for step in 0.. {
            disturb(step).await;
        }
    };
    tokio::select! {
        () = async { while let Some(call) = calls.join_next().await { call.unwrap(); } } => {}
        () = disturbing => {}
    }
    let stored = stored(database, organizations(round)).await;
    for (id, first, history) in histories {
        let history = history.lock().unwrap().clone();
        count(&history, seen);
        let log = stored.iter().find(|stored| stored.row.id == id).unwrap();
        let history = with_ends(history, &log.entries);
        let is_linearizable = is_linearizable(first, history.clone()).await;
        assert!(is_linearizable, "organization {id}, round {round}: {history:#?}");
    }
}

/// The calls of a history that have not returned, and where they begin.
fn open(history: &[Event]) -> BTreeMap<usize, (usize, Op)> {
    let mut open = BTreeMap::new();
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Invoke(caller, op) => drop(open.insert(*caller, (at, op.clone()))),
            Event::Return(caller, _) => drop(open.remove(caller)),
        }
    }
    open
}

/// The history with a return, after all others, for each update that had none and that the change log
/// has; without what has none and changed nothing.
fn with_ends(mut history: Vec<Event>, log: &[Entry]) -> Vec<Event> {
    let mut without = BTreeSet::new();
    for (caller, (at, op)) in open(&history) {
        let logged = match op {
            Op::Write(name, _) => log.iter().find(|entry| entry.request_id == name),
            Op::Read => None,
        };
        match logged {
            Some(entry) => {
                let done = Outcome::Done(entry.version, entry.name.clone());
                history.push(Event::Return(caller, done));
            }
            None => drop(without.insert(at)),
        }
    }
    let kept = history.into_iter().enumerate().filter(|(at, _)| !without.contains(at));
    kept.map(|(_, event)| event).collect()
}

fn count(history: &[Event], seen: &mut Seen) {
    let mut ops = BTreeMap::new();
    for event in history {
        let what = match event {
            Event::Invoke(caller, op) => {
                ops.insert(*caller, op);
                continue;
            }
            Event::Return(caller, outcome) => match (ops[caller], outcome) {
                (Op::Read, _) => "reads",
                (Op::Write(..), Outcome::Mismatch(_)) => "mismatches",
                (Op::Write(..), _) => "writes",
            },
        };
        *seen.entry(what).or_default() += 1;
    }
    for (_, op) in open(history).into_values() {
        let what = if matches!(op, Op::Read) { "failed reads" } else { "unknown writes" };
        *seen.entry(what).or_default() += 1;
    }
}

async fn under_faults_on_postgresql(number: usize) {
    let database = Database::postgres().await;
    add_organizations(&database, number + MORE).await;
    let proxy = Proxy::start(database.addr()).await;
    let behind = Arc::new(database.behind(&proxy));
    let services =
        [Service::start_beside(behind.clone()).await, Service::start_beside(behind.clone()).await];
    let instances = [Addresses::of(&services[0]), Addresses::of(&services[1])];
    let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
    let mut seen = Seen::new();
    for round in 0..number + MORE {
        one_round(round, &mut seen, &database, &instances, async |step| {
            pause(40).await;
            match step % 4 {
                0 => proxy.set_for("UPDATE", Fault::CutAnswers(1)),
                1 => proxy.set(Fault::CutAfter(150 * (step + 1))),
                2 => proxy.set(Fault::Delay(Duration::from_millis(5))),
                _ => proxy.set(Fault::Reset),
            }
        })
        .await;
        if round + 1 >= number && is_eventful(&seen) {
            return eprintln!("{seen:?} in {} linearizable histories", 2 * (round + 1));
        }
    }
    panic!("too little happens: {seen:?}");
}

async fn under_kills_on_sqlite(number: usize) {
    let database = Arc::new(Database::sqlite());
    add_organizations(&database, number + MORE).await;
    let mut seen = Seen::new();
    for round in 0..number + MORE {
        let services = [
            Service::start_beside(database.clone()).await,
            Service::start_beside(database.clone()).await,
        ];
        let instances = [Addresses::of(&services[0]), Addresses::of(&services[1])];
        one_round(round, &mut seen, &database, &instances, async |step| {
            tokio::time::sleep(Duration::from_millis(30)).await;
            // The first of the two ends in the midst; the other goes on.
            if step == round % 8 {
                services[0].signal("KILL");
            }
        })
        .await;
        if round + 1 >= number && is_eventful(&seen) {
            return eprintln!("{seen:?} in {} linearizable histories", 2 * (round + 1));
        }
    }
    panic!("too little happens: {seen:?}");
}

/// Histories in which nothing goes wrong prove little.
fn is_eventful(seen: &Seen) -> bool {
    ["reads", "writes", "mismatches", "unknown writes"].iter().all(|what| seen.contains_key(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_under_faults_of_postgresql_are_linearizable() {
    under_faults_on_postgresql(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_under_kills_over_sqlite_are_linearizable() {
    under_kills_on_sqlite(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn updates_under_many_faults_are_linearizable() {
    under_faults_on_postgresql(300).await;
    under_kills_on_sqlite(50).await;
}

/// The test is tested: what no order explains is refused.
#[tokio::test]
async fn a_false_history_is_found_not_linearizable() {
    use Event::{Invoke, Return};

    let first = || Model { version: 1, name: "first".to_owned() };
    let done = |version, name: &str| Outcome::Done(version, name.to_owned());
    let set = |name: &str, version| Op::Write(name.to_owned(), Some(version));
    let good = vec![
        Invoke(0, set("a", 1)),
        Invoke(1, set("b", 1)),
        Return(1, Outcome::Mismatch(2)),
        Return(0, done(2, "a")),
        Invoke(2, set("c", 2)), // Its outcome is never known.
        Invoke(0, Op::Read),
        Return(0, done(2, "a")),
        Invoke(1, Op::Read),
        Return(1, done(3, "c")),
    ];
    assert!(is_linearizable(first(), good.clone()).await);

    let lies = [
        ("two winners of one version", 2, Return(1, done(2, "b"))),
        ("a read of what was overwritten", 6, Return(0, done(1, "first"))),
        ("a change that is undone", 8, Return(1, done(1, "first"))),
        ("a change that nobody made", 8, Return(1, done(3, "d"))),
        ("a mismatch with what the version is", 2, Return(1, Outcome::Mismatch(1))),
        ("a change of a version that was over", 4, Invoke(2, set("c", 1))),
    ];
    for (lie, at, event) in lies {
        let mut history = good.clone();
        history[at] = event;
        assert!(!is_linearizable(first(), history).await, "{lie}");
    }
}
