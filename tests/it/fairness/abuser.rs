//! Abusers. They run on a thread of low priority, so they slow the honest callers of the same process only by what they
//! do to the service.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Builder,
    sync::oneshot,
    task::{self, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::swarm::Swarm;
use crate::harness::connect_from;

/// Where abusers come from.
pub const ABUSER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// How often abusers were answered what.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    pub fn note(&self, what: String) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap();
        let counts = counts.iter().map(|(what, count)| format!("{what} × {count}"));
        formatter.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}

/// What one abuser does until it is stopped.
#[derive(Clone)]
pub enum Abuser {
    Swarm(Swarm),
    Idle(Idle),
}

impl Abuser {
    /// What each of its connections does.
    fn start(self, tally: &Tally, tasks: &mut JoinSet<()>) {
        match self {
            Self::Swarm(swarm) => {
                for number in 0..swarm.connections {
                    tasks.spawn(swarm.clone().keep(number, tally.clone()));
                }
            }
            Self::Idle(idle) => {
                for number in 0..idle.connections {
                    tasks.spawn(idle.keep(number, tally.clone()));
                }
            }
        }
    }
}

/// Connections that are hardly used.
#[derive(Clone, Copy)]
pub struct Idle {
    pub to: SocketAddr,
    pub connections: u32,
    /// How often each asks for what costs least.
    pub every: Duration,
}

impl Idle {
    /// How long it rests before it connects again.
    const REST: Duration = Duration::from_secs(3);
    /// How many more connect in a second.
    const A_SECOND: u32 = 3000;

    async fn keep(self, number: u32, tally: Tally) {
        sleep(Duration::from_secs(1) * number / Self::A_SECOND).await;
        loop {
            let end = self.connection(&tally).await.map_or("not connected", |()| "closed");
            tally.note(end.to_owned());
            sleep(Self::REST).await;
        }
    }

    /// Asks now and then until the connection ends.
    async fn connection(&self, tally: &Tally) -> Option<()> {
        let mut stream = connect_from(ABUSER, self.to).await.ok()?;
        tally.note("connected".to_owned());
        let mut answer = [0; 4096];
        loop {
            let due = Instant::now() + self.every;
            if stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
                return Some(());
            }
            loop {
                tokio::select! {
                    read = stream.read(&mut answer) => match read {
                        Ok(0) | Err(_) => return Some(()),
                        Ok(_) => tally.note(String::from_utf8_lossy(&answer[9..12]).into_owned()),
                    },
                    () = sleep_until(due) => break,
                }
            }
        }
    }
}

/// Abusers at work, until it is told to stop.
pub struct Abuse {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
    tally: Tally,
}

impl Abuse {
    pub fn start(abusers: Vec<Abuser>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let tally = Tally::default();
        let noted = tally.clone();
        let work = move || {
            step_back();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for abuser in abusers {
                    abuser.start(&noted, &mut tasks);
                }
                let _ = stopped.await;
            });
        };
        Self { stop, thread: thread::spawn(work), tally }
    }

    /// Ends it, with every connection; what the abusers were answered.
    pub async fn stop(self) -> Tally {
        let _ = self.stop.send(());
        task::spawn_blocking(|| self.thread.join()).await.unwrap().expect("the abusers work");
        self.tally
    }
}

/// Gives this thread a low priority.
fn step_back() {
    let path = fs::read_link("/proc/thread-self").unwrap();
    let id = path.file_name().unwrap().to_str().unwrap();
    let _ = Command::new("renice").args(["-n", "10", "-p", id]).output();
}
