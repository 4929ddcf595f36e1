//! Budgets in bytes for what clients hold: requests under way, and answers that are made and not taken. Both
//! cost memory for as long as a client likes.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use http::{HeaderMap, Response, header::AUTHORIZATION};
use http_body::Body;
use orgd_shares::{Over, Share, Shares};

use crate::{forwarded::Source, metrics};

/// What a request is charged from its headers to the end of its answer. It covers a body and an answer of up
/// to this size. A request whose message never comes was measured at 7 to 15 KB, with its handler and its
/// buffer.
pub(crate) const REQUEST_BYTES: usize = 16 * 1024;
/// A source address or a caller has one of so many parts of what others leave.
const PARTS: usize = 2;

/// The secret in a request's Authorization header. All spellings of the header end with it, so all count for
/// one caller.
#[must_use]
pub fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get_all(AUTHORIZATION).iter().next()?.as_bytes().rsplit(|byte| *byte == b' ').next()
}

/// How many bytes an answer takes until its client has taken it, where its body does not say so. An extension
/// of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerBytes(pub usize);

/// Whose share something comes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// For requests, and for answers to whoever presents no credential.
    Source(IpAddr),
    /// For answers: a hash of the presented credential, which is not authenticated yet.
    Caller(u64),
}

/// The budget of all clients together.
#[derive(Clone, Debug)]
pub struct Budget {
    max: usize,
    shares: Shares<Client>,
    /// Keyed by this process, so that nobody can choose a credential that counts for another's.
    hasher: RandomState,
}

impl Budget {
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, shares: Shares::new(max, PARTS), hasher: RandomState::new() }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub fn measure(&self) {
        metrics::held_bytes(self.shares.taken());
    }

    /// Charges a request to its source, also beyond the source's share, as the request is already there. Then
    /// the second value is false.
    pub(crate) fn request(&self, Source(source): Source, bytes: usize) -> (Share<Client>, bool) {
        let client = Client::Source(source);
        match self.shares.take(&client, bytes) {
            Ok(share) => (share, true),
            Err(_) => (self.shares.count(&client, bytes), false),
        }
    }

    /// The budget that the answer to a request is charged to.
    pub(crate) fn of_caller(&self, Source(source): Source, headers: &HeaderMap) -> CallerBudget {
        let client = match secret(headers) {
            Some(secret) => Client::Caller(self.hasher.hash_one(secret)),
            None => Client::Source(source),
        };
        CallerBudget { shares: self.shares.clone(), client, is_refused: false }
    }
}

/// The budget of a request's caller: an extension of every request that a listener takes.
#[derive(Clone, Debug)]
pub struct CallerBudget {
    shares: Shares<Client>,
    client: Client,
    is_refused: bool,
}

/// An extension of an answer that is counted.
#[derive(Clone, Debug)]
pub(crate) struct AnswerShare {
    /// Given back when the last of the answer is out.
    pub(crate) share: Arc<Share<Client>>,
    pub(crate) bytes: usize,
}

impl CallerBudget {
    /// Refuses the request, as its source has more than its share.
    pub(crate) fn refuse(&mut self) {
        self.is_refused = true;
    }

    /// Whether the request is to be refused before anything is done for it.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.is_refused || self.shares.is_used_up(&self.client)
    }

    /// Charges an answer to its caller until it is taken. Fails if the caller is over its share, because it
    /// has not taken earlier answers.
    pub fn take<B: Body>(&self, answer: &mut Response<B>) -> Result<(), Over> {
        let told = answer.extensions().get().map(|AnswerBytes(bytes)| *bytes);
        let bytes = told.unwrap_or_else(|| {
            usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX)
        });
        let bytes = bytes.saturating_sub(REQUEST_BYTES);
        if bytes > 0 {
            let share = Arc::new(self.shares.take(&self.client, bytes)?);
            answer.extensions_mut().insert(AnswerShare { share, bytes });
        }
        Ok(())
    }

    /// Charges a part of an answer without an end of its own; nothing for up to [`REQUEST_BYTES`].
    pub(crate) fn count(&self, bytes: usize) -> Option<AnswerShare> {
        let bytes = bytes.checked_sub(REQUEST_BYTES).filter(|bytes| *bytes > 0)?;
        Some(AnswerShare { share: Arc::new(self.shares.count(&self.client, bytes)), bytes })
    }
}
