//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use http::{Request, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::activity::{Activity, GuardedBody, WatchedIo};
use crate::config::Limits;

/// How long accepting rests after it failed, as it does when file descriptors have run out.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 alone, as gRPC needs it.
    Http2,
    /// HTTP/1.1 or HTTP/2, as the client begins.
    Any,
}

/// Serves every connection that comes to `listener`, until `stop`. Each ends after its requests
/// then, and at once at `end`.
pub(super) async fn accept_loop(
    listener: TcpListener,
    router: Router,
    protocol: Protocol,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    end: CancellationToken,
) {
    let builder = builder(protocol, &limits);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let next = async {
            // A connection over the limit waits in the kernel's queue.
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let Some((accepted, place)) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(
                    stream,
                    builder.clone(),
                    router.clone(),
                    limits,
                    stop.clone(),
                    end.clone(),
                );
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    // The client's own doing, and nothing to rest for.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%error, "cannot accept a connection");
    sleep(ACCEPT_FAILURE_PAUSE).await;
}

fn builder(protocol: Protocol, limits: &Limits) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    // As the published page writes the names of headers.
    let builder = builder.title_case_headers(true);
    let mut builder = if protocol == Protocol::Http2 { builder.http2_only() } else { builder };
    let header_bytes_max = usize::try_from(limits.header_bytes_max).unwrap_or(usize::MAX);
    // No `header_read_timeout`: hyper's runs while a connection is idle too, and would end every
    // kept-alive connection after it. `Activity` tells the two apart.
    builder.http1().timer(TokioTimer::new()).max_buf_size(header_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_local_error_reset_streams(limits.local_resets_max)
        .max_header_list_size(limits.header_bytes_max)
        // Often enough that a quiet stream, such as a health watch, is no stalled client.
        .keep_alive_interval(limits.stall_timeout / 2)
        .keep_alive_timeout(limits.stall_timeout);
    builder
}

async fn connection(
    stream: TcpStream,
    builder: Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    end: CancellationToken,
) {
    // Answers are small; waiting to fill a packet only delays them. Fails on a closed socket only.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let io = WatchedIo::new(TokioIo::new(stream), activity.clone());
    let service = service_fn({
        let activity = activity.clone();
        move |request| answer(request, router.clone(), activity.clone())
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stopping = pin!(stop.cancelled());
    let mut overdue = pin!(overdue(&activity, &limits));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended with an error");
                }
                return;
            }
            () = &mut stopping, if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut overdue => {
                tracing::debug!("a connection was idle or slow for too long");
                return;
            }
            () = end.cancelled() => return,
        }
    }
}

/// Ends when the connection must.
async fn overdue(activity: &Activity, limits: &Limits) {
    loop {
        let now = Instant::now();
        let ends_at = activity.ends_at(limits);
        if ends_at <= now {
            return;
        }
        sleep_until(ends_at.min(now + WATCH_INTERVAL)).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    router: Router,
    activity: Activity,
) -> Result<http::Response<GuardedBody<axum::body::Body>>, Infallible> {
    let guard = activity.begin_request(request.version() < Version::HTTP_2);
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| GuardedBody::new(body, guard)))
}
