//! A request's body, which may not be here yet and costs memory for as long as its client likes.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{
    budget::REQUEST_BYTES,
    charge::{Charge, Origin},
    connection_state::ConnectionState,
};

/// A body that has not arrived completely.
struct Arriving {
    origin: Origin,
    state: ConnectionState,
    since: Instant,
    patience: Duration,
    /// Bytes that have arrived, and the charges for those beyond [`REQUEST_BYTES`].
    passed: usize,
    charges: Vec<Charge>,
}

impl Arriving {
    fn pass(&mut self, frame: &Frame<Bytes>) {
        self.passed = self.passed.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        while self.passed > REQUEST_BYTES * (self.charges.len() + 1) {
            let (charge, _) = self.origin.charge(REQUEST_BYTES);
            self.charges.push(charge);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.since.elapsed() >= self.patience {
            self.state.note_slow();
        }
    }
}

pin_project! {
    /// A request's body, which notes when all of it is here.
    pub(crate) struct ArrivingBody {
        #[pin]
        body: Incoming,
        // What had come with the request.
        first: Option<Result<Frame<Bytes>, hyper::Error>>,
        arriving: Option<Arriving>,
        state: ConnectionState,
    }
}

impl ArrivingBody {
    /// A client that has not sent all of it within `patience` counts as slow.
    pub(crate) fn new(
        body: Incoming,
        is_http1: bool,
        state: &ConnectionState,
        (origin, patience): (Origin, Duration),
    ) -> Self {
        let mut this = Self { body, first: None, arriving: None, state: state.clone() };
        // Over HTTP/1, hyper hands over the body later.
        if !is_http1 {
            this.look();
        }
        if !this.body.is_end_stream() {
            state.note_body(true);
            let (state, since) = (state.clone(), Instant::now());
            let (passed, charges) = (0, Vec::new());
            this.arriving = Some(Arriving { origin, state, since, patience, passed, charges });
        }
        this
    }

    /// Reads what has arrived. With `Expect: 100-continue`, this makes hyper ask for the body.
    pub(crate) fn look(&mut self) {
        if self.first.is_some() || self.body.is_end_stream() {
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(&mut context) {
            self.first = frame;
        }
        if matches!(self.first, Some(Err(_))) {
            self.state.note_broken();
        }
        if self.body.is_end_stream() {
            arrived(&mut self.arriving);
        }
    }
}

/// Notes that the body is complete.
fn arrived(arriving: &mut Option<Arriving>) {
    if let Some(mut arrived) = arriving.take() {
        arrived.patience = Duration::MAX;
        arrived.state.note_body(false);
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
            this.state.note_broken();
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

/// The size hint, and `more` bytes.
pub(crate) fn with(hint: &SizeHint, more: u64) -> SizeHint {
    let mut all = SizeHint::new();
    all.set_lower(hint.lower().saturating_add(more));
    if let Some(upper) = hint.upper() {
        all.set_upper(upper.saturating_add(more));
    }
    all
}
