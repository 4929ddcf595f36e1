//! The load: a process of its own with connections in a closed loop, each of which sends its next
//! request when the answer is in.
//!
//! It says on standard output when its window begins and ends, keeps on calling until its standard
//! input closes, so that whoever measures finds both edges under the same load, and then prints its
//! [`Report`].

use std::{
    cell::{Cell, RefCell},
    io::Read,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    client::{Answer, Call, Client, Credential, Request},
    histogram::Histogram,
    random::{CREDENTIALS, Xorshift, tokens},
};

/// What a worker says when its window begins, and when it ends.
pub const BEGIN: &str = "begin";
pub const END: &str = "end";

/// PostgreSQL's backends report what they did a second later at the earliest, at their next
/// statement. This long after the load comes one more round of calls, so many on each connection
/// that they reach all connections of the service's pool.
const REPORT_DELAY: Duration = Duration::from_millis(1100);
const REPORT_CALLS: u32 = 16;

/// What to load, with what, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Job {
    #[arg(long)]
    pub call: Call,
    #[arg(long)]
    pub addr: SocketAddr,
    #[arg(long)]
    pub connections: u32,
    #[arg(long)]
    pub warm_up: f64,
    #[arg(long)]
    pub seconds: f64,
    #[arg(long)]
    pub pause: f64,
    #[arg(long)]
    pub organizations: u64,
    /// The number of the run, which makes its names and its choices its own
    #[arg(long)]
    pub run: u32,
    /// Call again a second after the load, so that PostgreSQL's counters are whole
    #[arg(long)]
    pub settle: bool,
}

/// What a load found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests answered inside the window, a second.
    pub rate: f64,
    /// Latencies inside the window, in milliseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Requests refused inside the window for want of room, a second, and how long that took, in
    /// milliseconds.
    pub refused_rate: f64,
    pub refused_p99: f64,
    /// Requests from the first to the last, warm-up and all.
    pub requests: u64,
    /// Those of them that failed, and how the first of them did.
    pub errors: u64,
    pub error: Option<String>,
}

impl Report {
    pub fn new(latencies: &Histogram, seconds: f64) -> Self {
        Self {
            rate: latencies.total() as f64 / seconds,
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
            ..Self::default()
        }
    }
}

/// What the connections of one process share; they take turns on one thread.
struct Shared {
    job: Job,
    credentials: Vec<Credential>,
    begin: Instant,
    end: Instant,
    is_stopped: Cell<bool>,
    requests: Cell<u64>,
    latencies: RefCell<Histogram>,
    refusals: RefCell<Histogram>,
    errors: RefCell<Vec<String>>,
}

/// Runs the load, and prints what it found.
pub async fn run(job: Job) {
    let mut clients = Vec::new();
    for number in 0..job.connections {
        clients.push(Client::connect(job.call, job.addr, number).await);
    }
    let begin = Instant::now() + Duration::from_secs_f64(job.warm_up);
    let end = begin + Duration::from_secs_f64(job.seconds);
    let shared = Rc::new(Shared {
        job,
        credentials: tokens().into_iter().map(Credential::new).collect(),
        begin,
        end,
        is_stopped: Cell::new(false),
        requests: Cell::new(0),
        latencies: RefCell::new(Histogram::new()),
        refusals: RefCell::new(Histogram::new()),
        errors: RefCell::new(Vec::new()),
    });
    LocalSet::new().run_until(load(clients, &shared)).await;
    println!("{}", serde_json::to_string(&shared.report()).unwrap());
}

async fn load(clients: Vec<Client>, shared: &Rc<Shared>) {
    let mut calling = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        calling.spawn_local(keep_calling(client, number, shared.clone()));
    }
    sleep_until(shared.begin).await;
    println!("{BEGIN}");
    sleep_until(shared.end).await;
    println!("{END}");
    until_input_closes().await;
    shared.is_stopped.set(true);
    calling.join_all().await;
}

async fn until_input_closes() {
    let (sender, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    closed.await.unwrap();
}

async fn keep_calling(mut client: Client, number: u64, shared: Rc<Shared>) {
    let mut random = Xorshift::new(u64::from(shared.job.run) << 32 | number);
    while !shared.is_stopped.get() {
        if !shared.call(&mut client, &mut random).await {
            // What is refused at once would be asked for without end.
            sleep(Duration::from_secs_f64(shared.job.pause)).await;
        }
    }
    if shared.job.settle {
        sleep(REPORT_DELAY).await;
        for _ in 0..REPORT_CALLS {
            shared.call(&mut client, &mut random).await;
        }
    }
}

impl Shared {
    /// Whether a request was done.
    async fn call(&self, client: &mut Client, random: &mut Xorshift) -> bool {
        let number = self.requests.get();
        self.requests.set(number + 1);
        let request = Request {
            organization: 1 + random.below(self.job.organizations),
            credential: &self.credentials[random.below(CREDENTIALS) as usize],
            name: u64::from(self.job.run) << 32 | number,
        };
        let sent = Instant::now();
        let answer = client.call(&request).await;
        let answered = Instant::now();
        let (latencies, is_done) = match answer {
            Ok(Answer::Done) => (&self.latencies, true),
            Ok(Answer::Refused) => (&self.refusals, false),
            Err(error) => {
                self.errors.borrow_mut().push(error);
                return false;
            }
        };
        if self.begin <= answered && answered < self.end {
            latencies.borrow_mut().record(answered - sent);
        }
        is_done
    }

    fn report(&self) -> Report {
        let errors = self.errors.borrow();
        let refusals = self.refusals.borrow();
        Report {
            refused_rate: refusals.total() as f64 / self.job.seconds,
            refused_p99: refusals.quantile(0.99),
            requests: self.requests.get(),
            errors: errors.len() as u64,
            error: errors.first().cloned(),
            ..Report::new(&self.latencies.borrow(), self.job.seconds)
        }
    }
}
