//! A connection from its first byte to its last: the handshake, its requests, and what ends it.

use std::{fmt::Display, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use orgd_shares::spread;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    attention::Reason,
    charge::ConnectionBudget,
    connection_state::ConnectionState,
    context::{ListenerContext, Peer, Stages},
    limits::Limits,
    metrics::{self, Closed},
    protocol::builder,
    requests::Requests,
    watched::WatchedIo,
};

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long an evicted HTTP/2 connection has to send its GOAWAY.
const LEAVING_GRACE: Duration = Duration::from_secs(1);
/// A connection may hold one of so many parts of what all may hold.
const CONNECTION_PART: usize = 8;

impl ListenerContext {
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let Some(tls) = &self.tls else { return self.serve_plain(stream, peer).await };
        let handshake = timeout(self.limits.header_read_timeout, tls.accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            // It is evicted before its first request, so it can end at once.
            _ = peer.slot.attention().next() => return,
        };
        match shaken {
            // Boxed, or every connection would have its size.
            Ok(Ok(stream)) => Box::pin(self.serve_plain(stream, peer)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_plain(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let limits = self.limits;
        let attention = peer.slot.attention().clone();
        let state = self.state_of(&peer);
        let mut course = Course::new(&self.stages);
        // A token of its own: each poll of a connection locks the tokens that it checks.
        let end = self.stages.end.child_token();
        let io = TokioIo::new(WatchedIo::new(stream, state.clone()));
        let requests = Requests {
            context: self.clone(),
            peer: peer.clone(),
            state: state.clone(),
            is_last: course.is_last.clone(),
            is_ending: course.is_ending.clone(),
        };
        let service = service_fn(move |request| requests.clone().answer(request));
        let builder = builder(self.protocol, &limits, state.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut overdue = pin!(overdue(&state, &limits));
        // Spread, so that not all of one deployment's clients come back at once.
        let mut timer = pin!(sleep(spread(limits.connection_age_max, 0.9..1.1)));
        let mut is_stopping = false;
        loop {
            let step = tokio::select! {
                // In this order: a connection that always has something to read would else keep its limits
                // from being checked.
                biased;
                () = end.cancelled() => return,
                () = &mut overdue => return self.note_end(&state),
                () = course.is_ending.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                reason = attention.next() => course.interrupted(reason, &state, &limits),
                () = &mut timer => course.aged(&state, &limits),
                ended = &mut connection => return note_error(ended),
                // After each poll of the connection, as the next one might bring as much again.
                () = poll_fn(|_| state.end_turn()) => return self.note_end(&state),
            };
            let more_time = match step {
                Step::GoOn => None,
                Step::Close => return self.note_end(&state),
                Step::Announce => Some(course.announce(&limits)),
                Step::WindDown(grace) => {
                    connection.as_mut().graceful_shutdown();
                    course.wind_down(grace)
                }
            };
            if let Some(more_time) = more_time {
                timer.as_mut().reset(Instant::now() + more_time);
            }
        }
    }

    fn state_of(&self, peer: &Peer) -> ConnectionState {
        let share = self.budget.max() / CONNECTION_PART;
        let held_max = if peer.is_proxy { usize::MAX } else { share };
        let budget = ConnectionBudget::new(held_max, peer.slot.attention().clone());
        ConnectionState::new(peer.slot.clone(), budget)
    }

    fn note_end(&self, state: &ConnectionState) {
        if state.budget().is_greedy() {
            metrics::connection_closed(self.name, Closed::OverBudget);
        }
        tracing::debug!(
            "a connection was idle, slow or old for too long, a flood, held too much, or made place"
        );
    }
}

fn note_error(ended: Result<(), impl Display>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Young,
    /// The next answer announces the end.
    Announced,
    /// Only its last requests are answered.
    Over,
}

/// What is to be done with a connection now.
enum Step {
    GoOn,
    /// Announce the end with the next answer.
    Announce,
    /// Take no new requests. With a time: close after it.
    WindDown(Option<Duration>),
    Close,
}

/// Decides what becomes of a connection, and tells its requests.
struct Course {
    age: Age,
    /// Both are given to the connection's requests, as [`Requests`] has them.
    is_last: CancellationToken,
    is_ending: CancellationToken,
}

impl Course {
    fn new(stages: &Stages) -> Self {
        let (is_last, is_ending) = (stages.leave.child_token(), stages.stop.child_token());
        Self { age: Age::Young, is_last, is_ending }
    }

    fn interrupted(&self, reason: Reason, state: &ConnectionState, limits: &Limits) -> Step {
        match reason {
            Reason::Greedy => Step::Close,
            Reason::Leave if state.is_idle() && !state.is_http2() => Step::Close,
            Reason::Leave => Step::WindDown(state.is_idle().then_some(LEAVING_GRACE)),
            Reason::Slow if self.age == Age::Over => Step::GoOn,
            Reason::Slow => {
                tracing::debug!("a request did not come in its time");
                Step::WindDown(Some(limits.connection_age_grace))
            }
        }
    }

    /// The timer of the connection's age has fired.
    fn aged(&self, state: &ConnectionState, limits: &Limits) -> Step {
        match self.age {
            // HTTP/2 announces the end by GOAWAY. HTTP/1 can only announce it with an answer.
            Age::Young if !state.is_http2() => Step::Announce,
            // No request came since, so no answer could announce it. The idle timeout ends such a connection.
            Age::Announced if state.is_idle_http1() => Step::Announce,
            Age::Young | Age::Announced => Step::WindDown(Some(limits.connection_age_grace)),
            Age::Over => Step::Close,
        }
    }

    /// Returns how long an answer has to announce the end.
    fn announce(&mut self, limits: &Limits) -> Duration {
        self.age = Age::Announced;
        self.is_last.cancel();
        limits.connection_age_grace
    }

    /// Returns the time after which the connection is closed, if it has one.
    fn wind_down(&mut self, grace: Option<Duration>) -> Option<Duration> {
        if grace.is_some() {
            self.age = Age::Over;
        }
        self.is_ending.cancel();
        self.is_last.cancel();
        grace
    }
}

/// Returns when the connection must end.
async fn overdue(state: &ConnectionState, limits: &Limits) {
    loop {
        let now = Instant::now();
        let ends_at = state.ends_at(limits);
        if ends_at <= now || state.is_offending() {
            return;
        }
        state.reset_stalled(limits);
        sleep_until(ends_at.min(now + WATCH_INTERVAL)).await;
    }
}
