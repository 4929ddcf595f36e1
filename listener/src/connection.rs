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
        let mut next_age = Age::Grown;
        // Spread, so that not all of one deployment's clients come back at once.
        let mut aged = pin!(sleep(spread(limits.connection_age_max, 0.9..1.1)));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                // In this order: a connection that always has something to read would else keep its limits
                // from being checked.
                biased;
                () = end.cancelled() => return,
                () = &mut overdue => {
                    self.note_end(&state);
                    return;
                }
                () = is_ending.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                reason = attention.next() => {
                    let grace = match reason {
                        Reason::Greedy => {
                            self.note_end(&state);
                            return;
                        }
                        Reason::Leave if state.is_idle() && !state.is_http2() => return,
                        Reason::Leave => state.is_idle().then_some(LEAVING_GRACE),
                        Reason::Slow if next_age == Age::Over => continue,
                        Reason::Slow => {
                            tracing::debug!("a request did not come in its time");
                            Some(limits.connection_age_grace)
                        }
                    };
                    connection.as_mut().graceful_shutdown();
                    is_ending.cancel();
                    is_last.cancel();
                    if let Some(grace) = grace {
                        next_age = Age::Over;
                        aged.as_mut().reset(Instant::now() + grace);
                    }
                }
                () = &mut aged => {
                    match next_age {
                        // HTTP/2 announces the end by GOAWAY. HTTP/1 can only announce it with an answer.
                        Age::Grown if !state.is_http2() => next_age = Age::Told,
                        // No request came since, so no answer could announce it. The idle timeout ends such a
                        // connection.
                        Age::Told if state.is_idle_http1() => {}
                        Age::Grown | Age::Told => {
                            connection.as_mut().graceful_shutdown();
                            is_ending.cancel();
                            next_age = Age::Over;
                        }
                        Age::Over => {
                            tracing::debug!("a connection was too old, and its requests too slow");
                            return;
                        }
                    }
                    is_last.cancel();
                    aged.as_mut().reset(Instant::now() + limits.connection_age_grace);
                }
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    return;
                }
                // After each poll of the connection, as the next one might bring as much again.
                () = poll_fn(|_| state.end_turn()) => {
                    self.note_end(&state);
                    return;
                }
            }
        }
    }

    fn note_end(&self, state: &ConnectionState) {
        if state.budget().is_greedy() {
            metrics::connection_closed(self.name, Closed::OverBudget);
        }
        tracing::debug!("a connection was idle or slow for too long, a flood, or held too much");
    }
}

/// What is due when a connection's age timer fires.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Grown,
    /// Its end was to be announced with the next answer, but there was none, or the client goes on.
    Told,
    /// Its last requests have had their time: close it.
    Over,
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
