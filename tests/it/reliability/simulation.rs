//! Promise 11: the accept loop in a simulated network with partitions and crashes.
//!
//! Simulated by turmoil: the network, every process's time, and who runs when. Real: the accept loop
//! with its limits and its end, both APIs, the gateway with its channel, and the store over a SQLite
//! file, which survives crashes as a database elsewhere would (a process that dies within a commit is
//! in `crashes`). The store has threads of its own, so the simulation stands still while it works; one
//! call at a time gets to it. A seed decides faults, delays and the clients' choices. It does not
//! decide ids, the ages of connections (more or less a tenth) and which branch of a `select!` is
//! looked at first: a seed that fails is likely to fail again, and need not.

mod client;
mod dice;
mod hosts;

use std::{
    cell::Cell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use orgd::domain::{ChangeEntry, Field, FieldChange, Principal};
use turmoil::Sim;

use self::{
    client::{Client, UPDATES, UPDATES_AFTER},
    dice::Dice,
    hosts::{Database, GATEWAY, Process, SERVICE, serve, serve_gateway},
};
use crate::harness;

const CLIENTS: [&str; 3] = ["client-0", "client-1", "client-2"];
const TICK: Duration = Duration::from_millis(10);
/// How long there are faults.
const FAULTS: Duration = Duration::from_secs(20);
/// All that is to happen has happened by then, unless something hangs.
const END: Duration = Duration::from_secs(120);
/// The longest that a connection may still be there after a stop: its limits for a client that is
/// silent, pings included.
const LAST_CONNECTION: Duration = Duration::from_secs(12);

/// A fault that lasts until its time.
struct Fault {
    until: Duration,
    heal: Box<dyn FnOnce(&mut Sim<'_>)>,
}

/// Begins a fault on a link or a host that has none.
fn fault(sim: &mut Sim<'_>, dice: &Dice) -> Fault {
    let until = sim.elapsed() + Duration::from_millis(200) + dice.time_ms(4000);
    let server = [SERVICE, GATEWAY][usize::from(dice.below(2) == 0)];
    let index = usize::try_from(dice.below(4)).unwrap();
    let (from, to) = CLIENTS.get(index).map_or((GATEWAY, SERVICE), |client| (*client, server));
    let heal: Box<dyn FnOnce(&mut Sim<'_>)> = match dice.below(4) {
        0 => {
            // Nothing gets through, either way or back only; what was sent is lost.
            sim.partition(from, to);
            Box::new(move |sim| sim.repair(from, to))
        }
        1 => {
            sim.partition_oneway(to, from);
            Box::new(move |sim| sim.repair_oneway(to, from))
        }
        2 => {
            // It comes, but late.
            sim.hold(from, to);
            Box::new(move |sim| sim.release(from, to))
        }
        _ => {
            sim.crash(server);
            Box::new(move |sim| sim.bounce(server))
        }
    };
    Fault { until, heal }
}

/// What a simulation saw.
#[derive(Default)]
struct Seen {
    faults: usize,
    failures: u64,
}

/// Runs one seed to its end, and checks what is promised.
fn simulate(seed: u64, database: &Database, first_id: i64) -> Seen {
    let dice = Dice::new(seed);
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .simulation_duration(END * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(60))
        .tcp_capacity(1024)
        .enable_random_order()
        .rng_seed(seed)
        .build();
    let (service, gateway) = (Process::default(), Process::default());
    {
        let (database, process, dice) = (database.clone(), service.clone(), dice.clone());
        sim.host(SERVICE, move || serve(database.clone(), process.clone(), dice.clone()));
        let process = gateway.clone();
        sim.host(GATEWAY, move || serve_gateway(process.clone()));
    }
    let (is_healed, failures) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let ids = first_id..;
    for (index, (id, name)) in ids.clone().zip(CLIENTS).enumerate() {
        let (is_healed, failures) = (is_healed.clone(), failures.clone());
        let is_http2 = index == 1;
        let client = Client { seed, id, is_http2, dice: dice.clone(), is_healed, failures };
        sim.client(name, client.run());
    }

    let mut faults: Vec<Fault> = Vec::new();
    let mut begun = 0;
    while sim.elapsed() < FAULTS {
        sim.step().unwrap();
        let (over, lasting) = faults.into_iter().partition(|fault| fault.until <= sim.elapsed());
        faults = lasting;
        for Fault { heal, .. } in Vec::from_iter::<Vec<Fault>>(over) {
            heal(&mut sim);
        }
        if faults.is_empty() && dice.below(60) == 0 {
            faults.push(fault(&mut sim, &dice));
            begun += 1;
        }
    }
    for Fault { heal, .. } in faults {
        heal(&mut sim);
    }
    is_healed.set(true);
    while !sim.step().unwrap() {
        assert!(sim.elapsed() < END, "a client hangs");
    }

    service.stop();
    gateway.stop();
    let stopped = sim.elapsed();
    while sim.is_host_running(SERVICE) || sim.is_host_running(GATEWAY) {
        sim.step().unwrap();
        let left = (service.connections(), gateway.connections());
        assert!(sim.elapsed() < stopped + LAST_CONNECTION, "connections are left: {left:?}");
    }
    assert_eq!((service.connections(), gateway.connections()), (0, 0));
    for (id, _) in ids.zip(CLIENTS) {
        assert_stored(database, seed, id);
    }
    Seen { faults: begun, failures: failures.get() }
}

/// Every update is there once, in its order, and nothing else is.
fn assert_stored(database: &Database, seed: u64, id: i64) {
    let organization = orgd::domain::OrganizationId::new(id).unwrap();
    let operator = Principal::operator();
    let changes = database.store.list_changes(&operator, organization, 0, harness::WHOLE);
    let changes = database.runtime.block_on(changes).unwrap().entries;
    let name = |change: &ChangeEntry| {
        let [FieldChange { field: Field::Name, values: Some(values) }] = &change.fields[..] else {
            panic!("changed something else: {change:?}");
        };
        values.new.clone().unwrap()
    };
    let changes: Vec<_> = changes.iter().map(|change| (change.version, name(change))).collect();
    let updates = 0..UPDATES + UPDATES_AFTER;
    let expected: Vec<_> =
        updates.map(|round| (round + 2, Client::name(seed, id, round))).collect();
    assert_eq!(changes, expected, "organization {id}");
}

/// Runs these seeds, each on organizations of its own; the first that fails is named.
fn simulate_all(seeds: Range<u64>, lie: Option<i64>) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let clients = i64::try_from(CLIENTS.len()).unwrap();
    let id = |seed: u64| 1000 + clients * i64::try_from(seed).unwrap();
    let file = harness::Database::sqlite();
    let store = runtime.block_on(async {
        file.seed().await;
        file.add_organizations(id(seeds.start), id(seeds.end) - 1).await;
        file.store().await
    });
    let database = Database { store, runtime: runtime.handle().clone(), lie };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        let run = || simulate(seed, &database, id(seed));
        let one = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            format!("seed {seed}: {text}")
        })?;
        seen.faults += one.faults;
        seen.failures += one.failures;
    }
    eprintln!(
        "{} seeds: {} faults, {} tries failed and were made again",
        seeds.count(),
        seen.faults,
        seen.failures
    );
    assert!(seen.faults > 0 && seen.failures > 0, "without faults nothing is proven");
    Ok(())
}

#[test]
fn under_partitions_and_crashes_every_update_is_stored_once() {
    simulate_all(0..20, None).unwrap();
}

#[test]
#[ignore = "long: make soak"]
fn under_partitions_and_crashes_every_update_is_stored_once_with_200_seeds() {
    simulate_all(0..200, None).unwrap();
}

#[test]
fn an_acknowledged_update_that_is_not_stored_is_found_and_its_seed_named() {
    let last = UPDATES + UPDATES_AFTER - 1;
    let failed = simulate_all(7..8, Some(last)).unwrap_err();
    assert!(failed.starts_with("seed 7: "), "{failed}");
    let first = Client::name(7, 1021, last - 1);
    assert!(failed.contains("organization 1021") && failed.contains(&first), "{failed}");
}
