//! What clients hold: requests, whose bodies may not be here yet, and answers that are not taken. Each costs
//! memory for as long as its client likes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::activity::{Activity, RequestGuard};
use crate::shares::{AnswerShare, Client, HeldBytes, Holding, Share, Source};

/// What a request counts for from its headers to the end of its answer, and a body and an answer up to this
/// with it: a message that does not come, with its handler and the buffer for it, was measured at 7 to 15 KB.
pub(super) const REQUEST_BYTES: usize = 16 * 1024;
/// Answers are handed over in pieces, so that a stream lasts as long as its client has not taken most of it.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes that a client holds by a connection.
#[derive(Debug)]
pub(super) struct Hold {
    activity: Activity,
    bytes: usize,
    _share: Arc<Share<Client>>,
}

impl Hold {
    pub(super) fn begin(activity: &Activity, share: Arc<Share<Client>>, bytes: usize) -> Self {
        activity.hold(bytes);
        Self { activity: activity.clone(), bytes, _share: share }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.activity.release(self.bytes);
    }
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) held: HeldBytes,
    pub(super) source: Source,
    /// Whether the connection is a proxy's, which does not end for what one of its clients does.
    pub(super) is_proxied: bool,
}

impl Origin {
    /// Counts so much for the source, and tells whether it has its share of it. Its own connection ends where
    /// it has not.
    pub(super) fn hold(&self, activity: &Activity, bytes: usize) -> (Hold, bool) {
        let (share, is_within) = self.held.request(self.source, bytes);
        if !is_within && !self.is_proxied {
            activity.note_greedy();
        }
        (Hold::begin(activity, share.into(), bytes), is_within)
    }
}

/// A body that is not all here.
struct Arriving {
    origin: Origin,
    activity: Activity,
    since: Instant,
    patience: Duration,
    /// How much is here, and how much of that counts beside the request.
    passed: usize,
    holds: Vec<Hold>,
}

impl Arriving {
    fn pass(&mut self, frame: &Frame<Bytes>) {
        self.passed = self.passed.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        while self.passed > REQUEST_BYTES * (self.holds.len() + 1) {
            let (hold, _) = self.origin.hold(&self.activity, REQUEST_BYTES);
            self.holds.push(hold);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.since.elapsed() >= self.patience {
            self.activity.note_slow();
        }
    }
}

pin_project! {
    /// A request's body, which notes when all of it is here.
    pub(super) struct ArrivingBody {
        #[pin]
        body: Incoming,
        // What had come with the request.
        first: Option<Result<Frame<Bytes>, hyper::Error>>,
        arriving: Option<Arriving>,
        activity: Activity,
    }
}

impl ArrivingBody {
    /// Whoever spends `patience` on sending it is slow.
    pub(super) fn new(
        body: Incoming,
        is_http1: bool,
        activity: &Activity,
        (origin, patience): (Origin, Duration),
    ) -> Self {
        let mut this = Self { body, first: None, arriving: None, activity: activity.clone() };
        // Over HTTP/1 it is handed over later.
        if !is_http1 {
            this.look();
        }
        if !this.body.is_end_stream() {
            activity.note_body(true);
            let (activity, since) = (activity.clone(), Instant::now());
            let (passed, holds) = (0, Vec::new());
            this.arriving = Some(Arriving { origin, activity, since, patience, passed, holds });
        }
        this
    }

    /// Takes what is here. A body that waits to be asked for is asked for by this.
    pub(super) fn look(&mut self) {
        if self.first.is_some() || self.body.is_end_stream() {
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(&mut context) {
            self.first = frame;
        }
        if matches!(self.first, Some(Err(_))) {
            self.activity.note_broken();
        }
        if self.body.is_end_stream() {
            arrived(&mut self.arriving);
        }
    }
}

/// All of a body is here.
fn arrived(arriving: &mut Option<Arriving>) {
    if let Some(mut arrived) = arriving.take() {
        arrived.patience = Duration::MAX;
        arrived.activity.note_body(false);
    }
}

impl Body for ArrivingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut this = self.project();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        let frame = ready!(this.body.as_mut().poll_frame(context));
        if matches!(frame, Some(Err(_))) {
            this.activity.note_broken();
        }
        if frame.is_none() || this.body.is_end_stream() {
            arrived(this.arriving);
        } else if let (Some(arriving), Some(Ok(frame))) = (this.arriving, &frame) {
            arriving.pass(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok());
        let first = first.and_then(Frame::data_ref).map_or(0, Bytes::len);
        let first = u64::try_from(first).unwrap_or(u64::MAX);
        with(&self.body.size_hint(), first)
    }
}

/// What is held until an answer is out.
#[derive(Debug)]
struct Holds {
    _request: Hold,
    _answer: Option<Hold>,
}

/// A piece of an answer. It is dropped when it is written to the connection, or never will be: hyper and h2
/// keep it until then, long after they have asked for more.
struct Piece {
    bytes: Bytes,
    _holds: Arc<Holds>,
    _part: Option<Arc<Hold>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pin_project! {
    /// An answer's body, with which the request ends.
    pub(super) struct GuardedBody<B> {
        #[pin]
        body: B,
        activity: Activity,
        guard: RequestGuard,
        holding: Holding,
        holds: Arc<Holds>,
        // Whether the answer was counted as a whole.
        is_counted: bool,
        // What of the last frame was not asked for yet, and what is held for that frame.
        rest: Bytes,
        part: Option<Arc<Hold>>,
    }
}

impl<B: Body> GuardedBody<B> {
    /// The answer to a request for which so much is held.
    pub(super) fn guard(
        response: Response<B>,
        activity: Activity,
        mut guard: RequestGuard,
        (holding, request): (Holding, Hold),
    ) -> Response<Self> {
        let answer = response.extensions().get::<AnswerShare>().cloned();
        let is_counted = answer.is_some();
        let answer =
            answer.map(|AnswerShare { share, bytes }| Hold::begin(&activity, share, bytes));
        guard.answered();
        guard.note_untaken(!response.body().is_end_stream());
        let holds = Arc::new(Holds { _request: request, _answer: answer });
        let (rest, part) = (Bytes::new(), None);
        response.map(|body| Self { body, activity, guard, holding, holds, is_counted, rest, part })
    }
}

impl<B: Body<Data = Bytes>> Body for GuardedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if this.rest.is_empty() {
            // Whoever asks for more has taken what there was; from here on it waits for us.
            this.guard.note_untaken(false);
            *this.part = None;
            let frame = match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => *this.rest = data,
                Err(trailers) => {
                    this.guard.note_untaken(true);
                    return Poll::Ready(Some(Ok(trailers)));
                }
            }
            if !*this.is_counted
                && let Some(AnswerShare { share, bytes }) = this.holding.count(this.rest.len())
            {
                *this.part = Some(Arc::new(Hold::begin(this.activity, share, bytes)));
            }
        }
        // Also of the last one: whoever has sent it drops the body.
        this.guard.note_untaken(true);
        let bytes = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        let piece = Piece { bytes, _holds: this.holds.clone(), _part: this.part.clone() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        with(&self.body.size_hint(), rest)
    }
}

/// A hint of so many bytes more.
fn with(hint: &SizeHint, more: u64) -> SizeHint {
    let mut all = SizeHint::new();
    all.set_lower(hint.lower().saturating_add(more));
    if let Some(upper) = hint.upper() {
        all.set_upper(upper.saturating_add(more));
    }
    all
}
