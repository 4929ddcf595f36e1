//! A proxy between the service and PostgreSQL that misbehaves as it is told.
//!
//! It reads messages of PostgreSQL's protocol (version 3), so that it can fail a statement before the
//! server sees it, or after the server has done it. It does not speak TLS: it says so to clients, which
//! go on without.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    ops::ControlFlow::{self, Break, Continue},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::messages::{Messages, refusal, with_local_settings};

/// What happens to connections, new and open, until the proxy is told otherwise. Faults with a number
/// end by themselves, after which all passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Pass,
    /// What comes waits that long before it goes on, either way.
    Delay(Duration),
    /// What comes is held back until the fault ends, and then goes on, also for clients that have gone:
    /// a network that loses packets, over which TCP sends again.
    Hold,
    /// Statements are held back until the fault ends; all else passes.
    HoldStatements,
    /// What comes is taken and lost. The connections are reset when the fault ends.
    BlackHole,
    /// Open connections are reset, and new ones at once.
    Refuse,
    /// Open connections are reset, and new ones pass.
    Reset,
    /// The connection that brings the last of so many bytes from clients is reset after it, in the
    /// middle of a statement.
    CutAfter(usize),
    /// So many statements reach the server, and once it has done them, instead of its answer their
    /// clients see a reset.
    CutAnswers(u32),
    /// So many statements are answered with this SQLSTATE; the server does not see them. Only for
    /// statements outside of transaction blocks: the answer says that none is open.
    Answer(u32, &'static str),
}

/// A fault, and words that a statement or its values must have for it.
type Setting = (Fault, &'static str);

/// The proxy; gone with the value, and its connections with it.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: watch::Sender<SocketAddr>,
    setting: watch::Sender<Setting>,
    /// How often all open connections were reset.
    resets: watch::Sender<u32>,
    /// Statements that were held back one by one so far.
    held: watch::Sender<u32>,
    /// Whether what is set on a connection is lost after its statement, as with some poolers.
    loses_settings: bool,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_with(upstream, false).await
    }

    /// One behind which what is set on a connection is lost.
    pub async fn start_losing_settings(upstream: SocketAddr) -> Self {
        Self::start_with(upstream, true).await
    }

    async fn start_with(upstream: SocketAddr, loses_settings: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: watch::Sender::new(upstream),
            setting: watch::Sender::new((Fault::Pass, "")),
            resets: watch::Sender::new(0),
            held: watch::Sender::new(0),
            loses_settings,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { addr, shared, _tasks: tasks }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads to another server from now on; open connections are reset.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.shared.upstream.send_replace(upstream);
        self.set(Fault::Reset);
    }

    pub fn set(&self, fault: Fault) {
        self.set_for("", fault);
    }

    /// The same, where statements are meant only for those whose text, or one of whose values, has these
    /// words. A service tries its workers now and then by their statements without any value.
    pub fn set_for(&self, words: &'static str, fault: Fault) {
        let stays = if fault == Fault::Reset { Fault::Pass } else { fault };
        let (before, _) = self.shared.setting.send_replace((stays, words));
        if before == Fault::BlackHole || matches!(fault, Fault::Refuse | Fault::Reset) {
            self.shared.resets.send_modify(|resets| *resets += 1);
        }
    }

    /// Waits until a statement is held back, from when on this is called.
    pub async fn until_held(&self) {
        let mut held = self.shared.held.subscribe();
        held.changed().await.unwrap();
    }

    /// What is still to happen.
    pub fn fault(&self) -> Fault {
        self.shared.fault()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(serve(client, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either side ends it, or a fault does.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut resets = shared.resets.subscribe();
    if shared.fault() == Fault::Refuse {
        return reset(&client);
    }
    let server = async {
        // Who connects to a black hole is not answered; what it sends is taken by the system.
        shared.while_it_is(Fault::BlackHole).await;
        let upstream = *shared.upstream.borrow();
        TcpStream::connect(upstream).await
    };
    let server = tokio::select! {
        biased;
        _ = resets.changed() => return reset(&client),
        server = server => server,
    };
    let Ok(mut server) = server else { return reset(&client) };
    for side in [&client, &server] {
        side.set_nodelay(true).unwrap();
    }
    let mut exchange = Exchange {
        client: Messages::new(&mut client, true),
        server: Messages::new(&mut server, false),
        shared: &shared,
        statements: BTreeMap::new(),
        unanswered: 0,
    };
    let is_cut = tokio::select! {
        ended = exchange.run() => matches!(ended, Ok(Break(Cut))),
        _ = resets.changed() => true,
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

/// Makes the coming end of a connection a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

impl Shared {
    fn fault(&self) -> Fault {
        self.setting.borrow().0
    }

    async fn while_it_is(&self, fault: Fault) {
        let _ = self.setting.subscribe().wait_for(|(now, _)| *now != fault).await;
    }

    /// Takes one statement's part of a fault.
    fn take(&self, statement: Option<&str>) -> Fault {
        let mut taken = Fault::Pass;
        self.setting.send_if_modified(|(fault, words)| {
            let is_meant = statement.is_some_and(|text| text.contains(*words));
            let rest = match *fault {
                Fault::CutAnswers(number) if is_meant => Fault::CutAnswers(number - 1),
                Fault::Answer(number, code) if is_meant => Fault::Answer(number - 1, code),
                Fault::CutAnswers(_) | Fault::Answer(..) => return false,
                Fault::HoldStatements if !is_meant => return false,
                other => {
                    taken = other;
                    return false;
                }
            };
            taken = *fault;
            let is_over = matches!(rest, Fault::CutAnswers(0) | Fault::Answer(0, _));
            *fault = if is_over { Fault::Pass } else { rest };
            true
        });
        taken
    }

    /// How many of a client's bytes may go on before its connection is cut, where it is.
    fn cut(&self, bytes: usize) -> Option<usize> {
        let mut cut = None;
        self.setting.send_if_modified(|(fault, _)| {
            let Fault::CutAfter(left) = *fault else { return false };
            cut = (left <= bytes).then_some(left);
            *fault = cut.map_or(Fault::CutAfter(left.saturating_sub(bytes)), |_| Fault::Pass);
            true
        });
        cut
    }
}

/// The end of a connection by a fault.
struct Cut;

struct Exchange<'a> {
    client: Messages<'a>,
    server: Messages<'a>,
    shared: &'a Shared,
    /// The prepared statements' texts, by their names.
    statements: BTreeMap<Vec<u8>, String>,
    /// Groups of messages that the server has not answered to the end.
    unanswered: u32,
}

impl Exchange<'_> {
    async fn run(&mut self) -> io::Result<ControlFlow<Cut>> {
        let mut group = BytesMut::new();
        let mut statement = None;
        loop {
            tokio::select! {
                message = self.client.next() => {
                    let Some(message) = message? else { return Ok(Continue(())) };
                    let tag = self.client.tag(&message);
                    self.read(tag, &message, &mut statement);
                    group.extend_from_slice(&message);
                    // The server answers the others when one of these follows.
                    if !matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C') {
                        let executed = statement.take().filter(|_| tag == b'S');
                        let group = group.split().freeze();
                        if let Break(cut) = self.forward(tag, group, executed).await? {
                            return Ok(Break(cut));
                        }
                    }
                }
                message = self.server.next() => {
                    let Some(message) = message? else { return Ok(Continue(())) };
                    self.back(message).await?;
                }
            }
        }
    }

    /// Notes which statement a group executes, and with which values.
    fn read(&mut self, tag: u8, message: &[u8], statement: &mut Option<String>) {
        let text =
            |index: usize| message[5..].split(|byte| *byte == 0).nth(index).unwrap().to_vec();
        match tag {
            b'P' => {
                let sql = String::from_utf8(text(1)).unwrap();
                self.statements.insert(text(0), sql);
            }
            b'B' => {
                let values = String::from_utf8_lossy(&message[5..]);
                *statement = self.statements.get(&text(1)).map(|sql| format!("{sql}\n{values}"));
            }
            _ => {}
        }
    }

    /// Sends a group of a client's messages on, or does what the fault says.
    async fn forward(
        &mut self,
        tag: u8,
        group: Bytes,
        statement: Option<String>,
    ) -> io::Result<ControlFlow<Cut>> {
        let fault = self.shared.take(statement.as_deref());
        match fault {
            Fault::Delay(time) => sleep(time).await,
            Fault::Hold => self.shared.while_it_is(Fault::Hold).await,
            Fault::HoldStatements => {
                self.shared.held.send_modify(|held| *held += 1);
                self.shared.while_it_is(Fault::HoldStatements).await;
            }
            Fault::BlackHole => return Ok(Continue(())),
            Fault::Answer(_, code) => {
                self.until_answered().await?;
                self.client.send(&refusal(code)).await?;
                return Ok(Continue(()));
            }
            Fault::CutAnswers(_) => self.until_answered().await?,
            _ => {}
        }
        let is_lost = tag == b'Q' && self.shared.loses_settings;
        let group = if is_lost { with_local_settings(&group) } else { group };
        if let Some(bytes) = self.shared.cut(group.len()) {
            self.server.send(&group[..bytes]).await?;
            return Ok(Break(Cut));
        }
        self.server.send(&group).await?;
        // What is executed is committed at the Sync, before any of the answer is sent.
        if matches!(fault, Fault::CutAnswers(_)) {
            self.server.next().await?;
            return Ok(Break(Cut));
        }
        self.unanswered += u32::from(matches!(tag, b'S' | b'Q' | 0));
        Ok(Continue(()))
    }

    /// Waits for the answers to all that was sent on, so that another one may follow them.
    async fn until_answered(&mut self) -> io::Result<()> {
        while self.unanswered > 0 {
            let Some(message) = self.server.next().await? else { return Ok(()) };
            self.back(message).await?;
        }
        Ok(())
    }

    /// Sends a message of the server's back.
    async fn back(&mut self, message: Bytes) -> io::Result<()> {
        match self.shared.fault() {
            // Once for all that came together.
            Fault::Delay(time) if message[0] == b'Z' => sleep(time).await,
            Fault::Hold => self.shared.while_it_is(Fault::Hold).await,
            Fault::BlackHole => return Ok(()),
            _ => {}
        }
        self.unanswered -= u32::from(message[0] == b'Z');
        self.client.send(&message).await
    }
}
