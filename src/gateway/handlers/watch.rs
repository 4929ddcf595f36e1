//! The change log as server-sent events (WHATWG HTML §9.2), one event a change.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, header::ACCEPT, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::{
        handlers::incoming::{Incoming, authenticated_first},
        read::{path::organization_id, query::Query},
        write::{problem::Problem, resource::Change},
    },
    proto::v1,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx would else gather events until it has a buffer full of them.
const UNBUFFERED: [(HeaderName, HeaderValue); 1] =
    [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
const EVENT_STREAM: &str = "text/event-stream";

pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let types = lines.flat_map(|line| line.split(','));
    let essences = types.filter_map(|text| text.split(';').next());
    let mut essences = essences.map(str::trim);
    essences.any(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM))
}

/// `GET /v1/organizations/{id}/events`: follows the organization's changes after the client's last event, or
/// from now on.
#[utoipa::path(
    get,
    path = "/v1/organizations/{id}/events",
    operation_id = "watchOrganization",
    summary = "Follow the changes of an organization",
    description = "Server-sent events: each has the version as its id and the change as its data. The stream has no end of its own, so the page at /docs, which would wait for the whole answer, does not ask for it; `curl -N` shows it.",
    tag = "organizations",
    params(
        ("id" = i64, Path, description = "Which organization", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 90),
        ("lastEventId" = Option<i64>, Query, description = "The version after which to begin, where the client cannot send Last-Event-ID", minimum = 0),
        ("Last-Event-ID" = Option<i64>, Header, description = "The same, as browsers send it when they come back; it comes before lastEventId", minimum = 0),
    ),
    responses((status = 200, description = "The events, as long as the client stays", body = String, content_type = "text/event-stream"))
)]
pub(crate) async fn watch(
    Incoming { caller, head, limits, .. }: Incoming,
) -> Result<Response, Problem> {
    // An old connection ends the stream; the client comes back with its last event's id.
    let connection = head.extensions.get::<CancellationToken>().cloned().unwrap_or_default();
    let reading = async { Ok((organization_id(&head.uri)?, last_event_id(&head)?)) };
    let (id, from) = authenticated_first(&caller, &head.headers, reading).await?;
    if head.method == Method::HEAD {
        // Refused as the stream would be, which is not begun.
        let mut message = v1::ListChangesRequest { organization_id: id, ..Default::default() };
        message.page_size = 1;
        caller.read(message, |api, request| api.list_changes(request)).await?;
        let nothing = Sse::new(stream::empty::<Result<Event, axum::Error>>());
        return Ok((UNBUFFERED, nothing).into_response());
    }
    let message = v1::WatchRequest {
        organization_ids: vec![id],
        from_versions: from.into_iter().map(|version| (id, version)).collect(),
    };
    let changes = caller.read(message, |api, request| api.watch(request)).await?;
    // The service's signs of life are for the gateway; clients get the gateway's own.
    let changes = changes.try_filter(|change| future::ready(!change.heartbeat));
    let path = head.uri.path().to_owned();
    let request_id = caller.context.request_id.clone();
    let failure = move |status| Problem::from(status).event(&path, &request_id);
    let events = events(changes.map_err(failure)).take_until(connection.cancelled_owned());
    // At once, so that the client sees that the stream has begun; and then where there is no news.
    let beginning = stream::once(async { Event::default().comment("following") });
    let events = beginning.chain(events).map(Ok::<_, axum::Error>);
    let keep_alive = KeepAlive::new().interval(limits.heartbeat);
    Ok((UNBUFFERED, Sse::new(events).keep_alive(keep_alive)).into_response())
}

/// One event a change. An error ends the stream with an event that is the problem.
fn events(changes: impl Stream<Item = Result<v1::Change, String>>) -> impl Stream<Item = Event> {
    changes.map(|change| match change {
        Ok(change) => {
            let version = change.version.to_string();
            let data = serde_json::to_string(&Change::from(change)).unwrap_or_default();
            Event::default().event("change").id(version).data(data)
        }
        Err(problem) => Event::default().event("error").data(problem),
    })
}

/// The header comes before the parameter: a browser that comes back sends it to the address that it had.
fn last_event_id(head: &Parts) -> Result<Option<i64>, Problem> {
    let asked = Query::read(&head.uri)?.last_event_id()?;
    let mut lines = head.headers.get_all(LAST_EVENT_ID).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(Problem::repeated_header("Send one Last-Event-ID header only."));
    }
    let Some(line) = line else { return Ok(asked) };
    let version = line.to_str().ok().and_then(|text| text.parse::<i64>().ok());
    let version = version.filter(|version| *version >= 0);
    version.map(Some).ok_or_else(Problem::malformed_event_id)
}
