//! A connection from its first byte to its last: the handshake, its requests, and what ends it.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use orgd_shares::spread;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    attention::Reason,
    charge::ConnectionBudget,
    connection_state::ConnectionState,
    context::{ListenerContext, Peer},
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
            _ = peer.place.attention().next() => return,
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
        let share = self.budget.max() / CONNECTION_PART;
        let held_max = if peer.is_proxy { usize::MAX } else { share };
        let attention = peer.place.attention().clone();
        let budget = ConnectionBudget::new(held_max, attention.clone());
        let state = ConnectionState::new(peer.place.clone(), budget);
        let is_last = self.stages.leave.child_token();
        let is_ending = self.stages.stop.child_token();
        // A token of its own: each poll of a connection locks the tokens that it checks.
        let end = self.stages.end.child_token();
        let io = TokioIo::new(WatchedIo::new(stream, state.clone()));
        let requests = Requests {
            context: self.clone(),
            peer: peer.clone(),
            state: state.clone(),
            is_last: is_last.clone(),
            is_ending: is_ending.clone(),
        };
        let service = service_fn(move |request| requests.clone().answer(request));
        let builder = builder(self.protocol, &limits, state.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut overdue = pin!(overdue(&state, &limits));
        let mut age = Age::Young;
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
                () = is_ending.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                reason = attention.next() => interrupted(reason, age, &state, &limits),
                () = &mut timer => aged(age, &state, &limits),
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    return;
                }
                // After each poll of the connection, as the next one might bring as much again.
                () = poll_fn(|_| state.end_turn()) => return self.note_end(&state),
            };
            let grace = match step {
                Step::GoOn => continue,
                Step::Close => return self.note_end(&state),
                Step::Announce => {
                    age = Age::Announced;
                    Some(limits.connection_age_grace)
                }
                Step::WindDown(grace) => {
                    connection.as_mut().graceful_shutdown();
                    is_ending.cancel();
                    if grace.is_some() {
                        age = Age::Over;
                    }
                    grace
                }
            };
            is_last.cancel();
            if let Some(grace) = grace {
                timer.as_mut().reset(Instant::now() + grace);
            }
        }
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

fn interrupted(reason: Reason, age: Age, state: &ConnectionState, limits: &Limits) -> Step {
    match reason {
        Reason::Greedy => Step::Close,
        Reason::Leave if state.is_idle() && !state.is_http2() => Step::Close,
        Reason::Leave => Step::WindDown(state.is_idle().then_some(LEAVING_GRACE)),
        Reason::Slow if age == Age::Over => Step::GoOn,
        Reason::Slow => {
            tracing::debug!("a request did not come in its time");
            Step::WindDown(Some(limits.connection_age_grace))
        }
    }
}

/// The timer of a connection's age has fired.
fn aged(age: Age, state: &ConnectionState, limits: &Limits) -> Step {
    match age {
        // HTTP/2 announces the end by GOAWAY. HTTP/1 can only announce it with an answer.
        Age::Young if !state.is_http2() => Step::Announce,
        // No request came since, so no answer could announce it. The idle timeout ends such a connection.
        Age::Announced if state.is_idle_http1() => Step::Announce,
        Age::Young | Age::Announced => Step::WindDown(Some(limits.connection_age_grace)),
        Age::Over => Step::Close,
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
