//! What clients hold: requests whose bodies are not here yet, answers that are not taken, and watches
//! of the health, which need no credential. Each costs memory for as long as its client likes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::activity::{Activity, RequestGuard};

/// What counts once: a body that is on its way. A burst of honest calls has its headers first, and all
/// its messages then.
const ARRIVING: usize = 1;
/// What counts more, as it lasts: an answer that is not taken, and a watch of the health.
pub(super) const LASTING: usize = 3;
/// What a connection may hold whatever others do.
const SHARE: usize = 8 * LASTING;

/// How much the connections of a listener hold.
#[derive(Clone, Debug)]
pub(super) struct Holdings(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: usize,
    held: AtomicUsize,
}

impl Holdings {
    /// Nothing yet, and how much there may be before those with more than their share must end.
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Counts { max, held: AtomicUsize::new(0) }))
    }

    pub(super) fn add(&self, weight: usize) {
        self.0.held.fetch_add(weight, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, weight: usize) {
        self.0.held.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Whether there is more than there may be, and a connection has more than its share of it.
    pub(super) fn is_too_much(&self, own: usize) -> bool {
        own > SHARE && self.0.held.load(Ordering::Relaxed) > self.0.max
    }
}

/// Something that a client holds.
#[derive(Debug)]
pub(super) struct Hold {
    activity: Activity,
    weight: usize,
}

impl Hold {
    pub(super) fn begin(activity: &Activity, weight: usize) -> Self {
        activity.hold(weight);
        Self { activity: activity.clone(), weight }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.activity.release(self.weight);
    }
}

/// A body that is not all here.
#[derive(Debug)]
struct Arriving {
    hold: Hold,
    since: Instant,
    patience: Duration,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.since.elapsed() >= self.patience {
            self.hold.activity.note_slow();
        }
    }
}

pin_project! {
    /// A request's body, which its client holds until all of it is here.
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
        patience: Duration,
    ) -> Self {
        let mut this = Self { body, first: None, arriving: None, activity: activity.clone() };
        // A message that came with its request is no burden. Over HTTP/1 it is handed over later.
        if !is_http1 {
            this.look();
        }
        if !this.body.is_end_stream() {
            activity.note_body(true);
            let (hold, since) = (Hold::begin(activity, ARRIVING), Instant::now());
            this.arriving = Some(Arriving { hold, since, patience });
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
        arrived.hold.activity.note_body(false);
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
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(first));
        }
        hint
    }
}

/// An answer, or the next part of one, that nobody has asked for yet: the client takes no more.
#[derive(Debug)]
struct Untaken {
    hold: Hold,
    answer: u64,
}

impl Untaken {
    fn begin(activity: &Activity) -> Self {
        Self { hold: Hold::begin(activity, LASTING), answer: activity.answer_waits() }
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.hold.activity.answer_goes_on(self.answer);
    }
}

pin_project! {
    /// An answer's body, with which the request ends.
    pub(super) struct GuardedBody<B> {
        #[pin]
        body: B,
        activity: Activity,
        untaken: Option<Untaken>,
        guard: RequestGuard,
        watch: Option<Hold>,
    }
}

impl<B: Body> GuardedBody<B> {
    /// `watch`: what the client holds until the end.
    pub(super) fn new(
        body: B,
        activity: Activity,
        mut guard: RequestGuard,
        watch: Option<Hold>,
    ) -> Self {
        guard.answered();
        let untaken = (!body.is_end_stream()).then(|| Untaken::begin(&activity));
        Self { body, activity, untaken, guard, watch }
    }
}

impl<B: Body> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        // Whoever asks for more has taken what there was; from here on it waits for us.
        *this.untaken = None;
        let frame = ready!(this.body.as_mut().poll_frame(context));
        // Also of the last one: whoever has sent it drops the body.
        if matches!(frame, Some(Ok(_))) {
            *this.untaken = Some(Untaken::begin(this.activity));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
