//! What clients charge, in bytes: requests under way, and answers that are made and not taken. Each costs
//! memory for as long as its client likes.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use http::{HeaderMap, Response, header::AUTHORIZATION};
use http_body::Body;
use orgd_shares::{Over, Share, Shares};

use crate::{forwarded::Source, metrics};

/// What a request counts for from its headers to the end of its answer, and a body and an answer up to this
/// with it: a message that does not come, with its handler and the buffer for it, was measured at 7 to 15 KB.
pub(crate) const REQUEST_BYTES: usize = 16 * 1024;
/// A source address or a caller has one of so many parts of what others leave.
const PARTS: usize = 2;

/// The secret that a request presents: all spellings of the header end with it, and all are one caller's.
#[must_use]
pub fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get_all(AUTHORIZATION).iter().next()?.as_bytes().rsplit(|byte| *byte == b' ').next()
}

/// How many bytes an answer takes while it waits to be taken, where its body does not say so; an
/// extension of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerBytes(pub usize);

/// Whose share something comes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// For requests, and for answers to whoever presents no credential.
    Source(IpAddr),
    /// For answers: a hash of what is presented, as it is not known yet what that is worth.
    Caller(u64),
}

/// What may be held in all.
#[derive(Clone, Debug)]
pub struct Budget {
    max: usize,
    shares: Shares<Client>,
    /// With a key of this process: nobody can choose a credential that counts for another.
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

    /// Takes what a request costs. Where that is more than its source's share it is counted all the same,
    /// as the request is there, and the second value is false.
    pub(crate) fn request(&self, Source(source): Source, bytes: usize) -> (Share<Client>, bool) {
        let client = Client::Source(source);
        match self.shares.take(&client, bytes) {
            Ok(share) => (share, true),
            Err(_) => (self.shares.count(&client, bytes), false),
        }
    }

    /// What goes with a request to whoever makes its answer.
    pub(crate) fn of_caller(&self, Source(source): Source, headers: &HeaderMap) -> CallerBudget {
        let client = match secret(headers) {
            Some(secret) => Client::Caller(self.hasher.hash_one(secret)),
            None => Client::Source(source),
        };
        CallerBudget { shares: self.shares.clone(), client, is_refused: false }
    }
}

/// What the caller of a request may charge: an extension of every request that a listener takes.
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
    /// The request's source has more than its share.
    pub(crate) fn refuse(&mut self) {
        self.is_refused = true;
    }

    /// Whether the request is to be refused before anything is done for it.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.is_refused || self.shares.is_used_up(&self.client)
    }

    /// Counts an answer for its caller until it is taken. An error: the caller has not taken others, and
    /// this one is not to wait as well.
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

    /// Counts a part of an answer that has no end of its own.
    pub(crate) fn count(&self, bytes: usize) -> Option<AnswerShare> {
        let bytes = bytes.checked_sub(REQUEST_BYTES).filter(|bytes| *bytes > 0)?;
        Some(AnswerShare { share: Arc::new(self.shares.count(&self.client, bytes)), bytes })
    }
}
