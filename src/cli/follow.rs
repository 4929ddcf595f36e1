//! `orgd organization changes --follow`: one stream after the other, from the last version on.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use super::service::{DEADLINE, Service, is_refusal};
use crate::{proto::v1, rests::rests};

/// The service sends a sign of life every 20 s at least; a stream quiet for longer than this is lost.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// The rests before a retry, at most: whoever lost the same service does not come back at one moment.
const REST_FIRST: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(30);

/// Shows changes after a version as they are made. A stream that ends, as connections do, is followed by the
/// next. Ends with a refusal, or where there was no stream at all.
pub(super) async fn follow(
    service: Service,
    id: i64,
    after: i64,
    show: impl Fn(v1::Change) -> Result<()>,
) -> Result<()> {
    let mut following = Following { service, id, after, stream: None, has_begun: false };
    let mut retries = rests(REST_FIRST, REST_MAX);
    loop {
        match following.next().await {
            Ok(change) => {
                retries = rests(REST_FIRST, REST_MAX);
                if !change.heartbeat {
                    following.after = change.version;
                    show(change)?;
                }
            }
            Err(status) if following.has_begun && !is_refusal(&status) => {
                sleep(retries.next().unwrap_or(REST_MAX)).await;
            }
            Err(status) => return Err(following.service.failed(&status)),
        }
    }
}

struct Following {
    service: Service,
    id: i64,
    after: i64,
    stream: Option<Streaming<v1::Change>>,
    has_begun: bool,
}

impl Following {
    /// What comes next on the stream, on a new one where the last has ended.
    async fn next(&mut self) -> Result<v1::Change, Status> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.start().await?,
        };
        let Ok(next) = timeout(QUIET_MAX, stream.message()).await else {
            return Err(Status::unavailable("the stream is silent"));
        };
        let change = next?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        self.stream = Some(stream);
        Ok(change)
    }

    async fn start(&mut self) -> Result<Streaming<v1::Change>, Status> {
        let mut request = self.service.request(v1::WatchRequest {
            organization_ids: vec![self.id],
            from_versions: [(self.id, self.after)].into(),
        });
        // A stream has no end of its own; its begin has.
        request.metadata_mut().remove("grpc-timeout");
        let Ok(begun) = timeout(DEADLINE, self.service.client.watch(request)).await else {
            return Err(Status::deadline_exceeded("the stream does not begin"));
        };
        let stream = begun?.into_inner();
        self.has_begun = true;
        Ok(stream)
    }
}
