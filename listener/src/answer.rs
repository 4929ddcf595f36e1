//! An answer's body, which costs memory until its client has taken it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    arriving::with,
    budget::{AnswerShare, CallerBudget},
    charge::{Charge, ConnectionBudget},
    connection_state::RequestGuard,
};

/// The largest piece of an answer that hyper gets at once. With small pieces, the body lives until its client
/// has taken most of the answer.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Debug)]
struct Charges {
    _request: Charge,
    _answer: Option<Charge>,
}

/// A piece of an answer. It is dropped when it is written to the connection, or never will be: hyper and h2
/// keep it until then, long after they have asked for more.
struct Piece {
    bytes: Bytes,
    _charges: Arc<Charges>,
    _part: Option<Arc<Charge>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pin_project! {
    /// An answer's body. The request ends when it is dropped.
    pub(crate) struct GuardedBody<B> {
        #[pin]
        body: B,
        connection: ConnectionBudget,
        guard: RequestGuard,
        caller_budget: CallerBudget,
        charges: Arc<Charges>,
        // Whether the answer was counted as a whole.
        is_counted: bool,
        // The part of the last frame that was not handed over yet, and the charge for that frame.
        rest: Bytes,
        part: Option<Arc<Charge>>,
    }
}

impl<B: Body> GuardedBody<B> {
    /// Wraps the answer to a request, for which `request` is charged.
    pub(crate) fn guard(
        response: Response<B>,
        connection: ConnectionBudget,
        mut guard: RequestGuard,
        (caller_budget, request): (CallerBudget, Charge),
    ) -> Response<Self> {
        let answer = response.extensions().get::<AnswerShare>().cloned();
        let is_counted = answer.is_some();
        let answer =
            answer.map(|AnswerShare { share, bytes }| Charge::start(&connection, share, bytes));
        guard.answered();
        guard.note_untaken(!response.body().is_end_stream());
        let charges = Arc::new(Charges { _request: request, _answer: answer });
        let (rest, part) = (Bytes::new(), None);
        response.map(|body| Self {
            body,
            connection,
            guard,
            caller_budget,
            charges,
            is_counted,
            rest,
            part,
        })
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
            *this.part = None;
            let frame = match this.body.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => {
                    // hyper asks for more, so the client has taken all before. Now the client waits for us.
                    this.guard.note_untaken(false);
                    return other;
                }
            };
            match frame.into_data() {
                Ok(data) => *this.rest = data,
                Err(trailers) => {
                    this.guard.note_untaken(true);
                    return Poll::Ready(Some(Ok(trailers)));
                }
            }
            if !*this.is_counted
                && let Some(AnswerShare { share, bytes }) =
                    this.caller_budget.count(this.rest.len())
            {
                *this.part = Some(Arc::new(Charge::start(this.connection, share, bytes)));
            }
        }
        // Also for the last piece: hyper drops the body once it has sent it.
        this.guard.note_untaken(true);
        let bytes = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        let piece = Piece { bytes, _charges: this.charges.clone(), _part: this.part.clone() };
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
