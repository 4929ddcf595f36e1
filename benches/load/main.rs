//! The load program: how fast orgd is and what it uses, beside a peer and beside floors.
//!
//! It starts everything itself: a PostgreSQL of its own, the services, and the load, which is this
//! program again in a process of its own. Progress goes to standard error; the tables come at the
//! end, on standard output.

#![allow(
    unreachable_pub,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends the program, and its numbers are small"
)]

mod bounds;
mod client;
mod database;
mod floor;
mod histogram;
mod ladder;
mod measure;
mod pairs;
mod pgbench;
#[path = "../../tests/it/harness/postgres.rs"]
mod postgres;
mod process;
mod random;
mod results;
mod systems;
mod table;
mod usage;
mod worker;

use std::{fs, path::PathBuf, thread};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};

use self::{
    postgres::Cluster,
    results::Results,
    systems::{LADDER, NAMES, Systems},
};

/// PostgreSQL's defaults, fsync and synchronous commits among them, but for as many connections as
/// all services need, and for checkpoints, of which none may fall into a window.
const SETTINGS: [&str; 3] = ["max_connections=300", "max_wal_size=8GB", "checkpoint_timeout=30min"];

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
    /// What `cargo bench` says to every program
    #[arg(long, hide = true)]
    bench: bool,
}

/// What runs in a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Worker(worker::Job),
    #[command(hide = true)]
    Floor,
}

/// What is measured, and how long.
#[derive(Args, Debug)]
pub struct Options {
    /// Length of a window
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Load before each window, which does not count [default: 1, and 10 with --scale]
    #[arg(long)]
    warm_up: Option<f64>,
    /// Windows for each system and number of connections; the tables have medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<u32>,
    /// Systems
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(NAMES),
        default_values = NAMES
    )]
    systems: Vec<String>,
    /// How long a connection rests after a refusal, in seconds; what the service asks for is 1
    #[arg(long, default_value_t = 0.001)]
    pause: f64,
    /// Stored organizations
    #[arg(long, default_value_t = 10_000)]
    organizations: u64,
    /// Measure only what a request costs, rung by rung from bare axum to an update
    #[arg(long, conflicts_with_all = ["scale", "other"])]
    ladder: bool,
    /// Compare a small database with a large one instead
    #[arg(long)]
    scale: bool,
    /// Organizations of the large one
    #[arg(long, default_value_t = 5_000_000)]
    scale_organizations: u64,
    /// Compare with another binary of orgd instead, such as one from before a change
    #[arg(long, conflicts_with = "scale")]
    other: Option<PathBuf>,
}

impl Options {
    fn warm_up(&self) -> f64 {
        self.warm_up.unwrap_or(if self.scale { 10.0 } else { 1.0 })
    }
}

fn main() {
    let cli = Cli::parse();
    let one_thread = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match cli.part {
        Some(Part::Worker(job)) => one_thread().block_on(worker::run(job)),
        Some(Part::Floor) => tokio::runtime::Runtime::new().unwrap().block_on(floor::serve()),
        None => one_thread().block_on(run(&cli.options)),
    }
}

async fn run(options: &Options) {
    let cluster = Cluster::start(&SETTINGS);
    let folder = tempfile::tempdir().unwrap();
    let pair = match &options.other {
        Some(other) => Some(pairs::binaries(other, options)),
        None => options.scale.then(|| pairs::sizes(options)),
    };
    if let Some(pair) = pair {
        let (ratios, results, versions) = pair.run(&cluster, folder.path(), options).await;
        print(options, &versions, &ratios.to_string(), &results);
        return;
    }
    let has_ladder = options.ladder || options.systems.iter().any(|system| system == LADDER);
    let mut tables = String::new();
    let mut results = Results::default();
    let mut versions = Vec::new();
    if has_ladder {
        (results, versions) = ladder::measure(&cluster, options).await;
        tables = format!("{}\n{}\n", ladder::table(&results), bounds::ladder(&results));
    }
    if !options.ladder {
        let mut systems = Systems::start(&cluster, folder.path(), options.organizations).await;
        systems.targets.retain(|target| options.systems.contains(&target.name));
        results.append(Results::measure(&systems.targets, &options.connections, options).await);
        versions = systems.versions;
        tables += &bounds::table(&results, &systems.facts).to_string();
    }
    print(options, &versions, &tables, &results);
}

/// The tables: first what counts.
fn print(options: &Options, versions: &[String], tables: &str, results: &Results) {
    let Options { rounds, seconds, .. } = options;
    let processors = thread::available_parallelism().unwrap();
    println!("{processors} processors ({}); {}.", processor(), versions.join(", "));
    println!(
        "{rounds} rounds, windows of {seconds} s after a warm-up of {} s; medians of the rounds.",
        options.warm_up()
    );
    println!("PostgreSQL has its defaults (fsync and synchronous_commit are on), but for");
    println!("{}, so that no checkpoint falls into a window.", SETTINGS.join(", "));
    if !results.is_sound() {
        println!("**Requests failed, so no number here counts.**");
    }
    let (_, median, largest) = results.range(|found| found.other_cpu);
    println!(
        "Beside it all the machine was busy with {median:.2} processors, {largest:.2} at most."
    );
    // What moves every number is told, so that nobody takes it for a difference of systems.
    let (least, _, largest) = results.range(|found| found.speed);
    println!(
        "Between windows the speed of a processor differed by a factor of {:.2}.\n",
        largest / least
    );
    println!("{tables}\n{}", table::numbers(results));
}

/// What the processors call themselves.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned()
}
