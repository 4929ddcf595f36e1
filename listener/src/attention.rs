//! How a connection's task hears of what happens elsewhere. One waker serves all reasons: each turn of the task
//! would look at one for each.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

/// Why a connection is to end, at once or soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client holds more than its share.
    Greedy,
    /// The connection is to make place for another.
    Leave,
    /// The client has spent a request's whole time on sending it.
    Slow,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Greedy, Self::Leave, Self::Slow];

    fn bit(self) -> u8 {
        match self {
            Self::Greedy => 1,
            Self::Leave => 2,
            Self::Slow => 4,
        }
    }
}

/// The reasons that there are for one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attention(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reasons: AtomicU8,
    /// Those of them that the task has not heard of.
    news: AtomicU8,
    task: AtomicWaker,
}

impl Attention {
    /// Gives a reason. The task hears of each once.
    pub(crate) fn call(&self, reason: Reason) {
        let bit = reason.bit();
        if self.0.reasons.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.0.news.fetch_or(bit, Ordering::Release);
            self.0.task.wake();
        }
    }

    pub(crate) fn has(&self, reason: Reason) -> bool {
        self.0.reasons.load(Ordering::Relaxed) & reason.bit() != 0
    }

    /// Ends with the next reason. For one task alone.
    pub(crate) async fn next(&self) -> Reason {
        poll_fn(|context| {
            // Before the look: what comes after it wakes.
            self.0.task.register(context.waker());
            let news = self.0.news.load(Ordering::Acquire);
            let Some(reason) = Reason::ALL.into_iter().find(|reason| news & reason.bit() != 0)
            else {
                return Poll::Pending;
            };
            self.0.news.fetch_and(!reason.bit(), Ordering::Relaxed);
            Poll::Ready(reason)
        })
        .await
    }
}
