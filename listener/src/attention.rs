//! How other tasks interrupt a connection's task. One waker serves all reasons: with one for each, every poll
//! of the task would check them all.

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

/// The reasons for which one connection must end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attention(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reasons: AtomicU8,
    /// Those that the task has not been told yet.
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

    /// Waits for the next reason. Only one task may wait, as there is one waker.
    pub(crate) async fn next(&self) -> Reason {
        poll_fn(|context| {
            // Registered before the look, so that a reason that comes after the look wakes the task.
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
