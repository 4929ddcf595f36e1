//! Who is served when, and who is refused.

use std::{sync::Arc, time::Instant};

use futures_util::FutureExt;
use orgd_shares::Holder;
use tokio::sync::oneshot;

use super::{OrganizationLock, Queue, QueueLimits};
use crate::{
    domain::{Error, OrganizationId},
    telemetry::metrics::QueueTelemetry,
};

type Numbers = Arc<Queue<u32, ()>>;
type Answer = oneshot::Receiver<((), OrganizationLock<u32, ()>)>;

fn queue(waiting_max: usize, batch_max: usize) -> Numbers {
    let limits = QueueLimits { waiting_max, batch_max };
    Queue::new(limits, QueueTelemetry::new("tests", "none", "UPDATE", "organizations"))
}

fn holder(name: &str) -> Holder {
    Holder::Principal(name.into())
}

/// Submits a number for a caller; an organization of 0 is none.
fn submit(queue: &Numbers, name: &str, organization: i64, work: u32) -> Result<Answer, Error> {
    let (reply, answer) = oneshot::channel();
    queue.submit(&holder(name), OrganizationId::new(organization), work, reply)?;
    Ok(answer)
}

/// Submits all, and keeps who waits for them.
fn fill(queue: &Numbers, work: &[(&str, i64, u32)]) -> Vec<Answer> {
    let submitted = work
        .iter()
        .map(|(name, organization, work)| submit(queue, name, *organization, *work).unwrap());
    submitted.collect()
}

/// The batches in which all that waits is done, each answered before the next.
fn batches(queue: &Numbers) -> Vec<Vec<u32>> {
    let next = || queue.next().now_or_never().flatten();
    std::iter::from_fn(next).map(|batch| batch.iter().map(|job| job.work).collect()).collect()
}

#[test]
fn callers_are_served_in_turn_and_the_updates_of_each_in_the_order_of_arrival() {
    for (work, expected) in [
        (&[][..], &[][..]),
        (&[("a", 1, 1), ("a", 2, 2), ("a", 3, 3)], &[&[1, 2][..], &[3]]),
        (&[("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("b", 4, 4)], &[&[1, 4], &[2, 3]]),
        (&[("a", 0, 1), ("a", 0, 2), ("b", 0, 3), ("c", 0, 4)], &[&[1, 3], &[4, 2]]),
        // One organization: one in a batch, and callers in turn behind the first.
        (&[("a", 1, 1), ("a", 1, 2), ("a", 1, 3)], &[&[1], &[2], &[3]]),
        (
            &[("a", 1, 1), ("a", 1, 2), ("a", 1, 3), ("b", 1, 4), ("b", 1, 5)],
            &[&[1], &[2], &[4], &[3], &[5]],
        ),
        (&[("a", 1, 1), ("a", 1, 2), ("a", 2, 3), ("b", 1, 4)], &[&[1, 3], &[2], &[4]]),
    ] {
        let queue = queue(100, 2);
        let waiting = fill(&queue, work);
        assert_eq!(batches(&queue), expected, "{work:?}");
        drop(waiting);
        assert_eq!(queue.places.taken(), 0);
        assert!(queue.lock().locked.is_empty());
    }
}

#[test]
fn who_comes_behind_five_hundred_of_another_is_in_the_next_batch() {
    let queue = queue(1024, 64);
    let many: Vec<_> = (0..500).map(|work| ("a", i64::from(work) + 1, work)).collect();
    let _waiting = fill(&queue, &many);
    let _late = submit(&queue, "b", 1000, 1000).unwrap();
    let batch = queue.next().now_or_never().flatten().unwrap();
    assert_eq!(batch.len(), 64);
    assert!(batch.iter().any(|job| job.work == 1000));

    // The same behind one organization: the one under way is waited for, and one of the other's.
    let queue = self::queue(1024, 64);
    let many: Vec<_> = (0..500).map(|work| ("a", 1, work)).collect();
    let _waiting = fill(&queue, &many);
    let _late = submit(&queue, "b", 1, 1000).unwrap();
    assert_eq!(batches(&queue)[..4], [[0], [1], [1000], [2]]);
}

#[test]
fn nobody_fills_the_queue_alone_nor_for_one_organization() {
    let refusal = |queue: &Numbers, name, organization| match submit(queue, name, organization, 0) {
        Ok(_) => "",
        Err(Error::ShareExhausted) => "share",
        Err(Error::Overloaded) => "whole",
        Err(_) => "other",
    };
    let queue = queue(8, 8);
    let own = fill(&queue, &[("a", 1, 0), ("a", 1, 0), ("a", 2, 0), ("a", 3, 0)]);
    assert_eq!(refusal(&queue, "a", 5), "share");
    let others = fill(&queue, &[("b", 0, 0), ("b", 0, 0)]);
    assert_eq!(refusal(&queue, "b", 0), "share", "a half of what is left");
    let last = fill(&queue, &[("c", 0, 0), ("d", 0, 0)]);
    assert_eq!(refusal(&queue, "e", 0), "whole");
    assert_eq!(refusal(&queue, "a", 0), "share", "more than its share by now");
    // Taken by a worker, and by that no longer in the queue; but for what waits for a lock.
    let batch = queue.next().now_or_never().flatten().unwrap();
    assert_eq!((batch.len(), queue.places.taken()), (7, 1));
    assert_eq!(refusal(&queue, "e", 0), "");
    drop((own, others, last));

    let queue = self::queue(8, 8);
    let members = fill(&queue, &[("a", 1, 0), ("a", 1, 0), ("b", 1, 0), ("b", 1, 0)]);
    assert_eq!(refusal(&queue, "b", 1), "share", "the organization's");
    assert_eq!(refusal(&queue, "c", 1), "", "whoever has nothing there has a place");
    assert_eq!(refusal(&queue, "c", 1), "share");
    assert_eq!(refusal(&queue, "c", 2), "");
    drop(members);
}

#[test]
fn those_who_gave_up_leave_their_places() {
    let queue = queue(4, 8);
    let mut waiting = fill(&queue, &[("a", 1, 1), ("a", 1, 2)]);
    assert!(matches!(submit(&queue, "a", 1, 3), Err(Error::ShareExhausted)));
    // The one that has the lock; the next goes on with it.
    drop(waiting.remove(0));
    queue.has_leavers.store(true, std::sync::atomic::Ordering::Relaxed);
    waiting.extend(submit(&queue, "a", 1, 3).ok());
    assert_eq!(queue.places.taken(), 2);
    assert_eq!(batches(&queue), [[2], [3]]);
    drop(waiting);
    assert_eq!(queue.places.taken(), 0);
}

#[test]
fn work_that_finds_nothing_waiting_and_nothing_under_way_needs_no_worker() {
    let queue = queue(100, 8);
    let claim = |organization| queue.claim(OrganizationId::new(organization));
    for organization in [1, 1, 0] {
        assert!(claim(organization).is_some(), "{organization}");
    }
    let waiting = fill(&queue, &[("a", 1, 1)]);
    assert!(claim(2).is_none(), "somebody waits");
    let batch = queue.next().now_or_never().flatten().unwrap();
    assert!(claim(2).is_none(), "a batch is under way");
    queue.done(batch.len(), Instant::now());
    assert!(claim(2).is_some());
    assert!(claim(1).is_none(), "organization 1 is locked");
    drop((batch, waiting));

    let (own, lock) = claim(1).unwrap();
    assert!(claim(2).is_none(), "another has it");
    let behind = fill(&queue, &[("a", 1, 2), ("a", 2, 3)]);
    assert_eq!(batches(&queue), [[3]], "organization 1 is locked");
    drop((own, lock));
    assert_eq!(batches(&queue), [[2]]);
    drop(behind);
    queue.close();
    assert!(claim(3).is_none());
}

#[test]
fn what_nobody_can_do_is_taken_all_at_once() {
    let queue = queue(100, 1);
    let waiting = fill(&queue, &[("a", 1, 1), ("a", 1, 2), ("b", 1, 3), ("b", 0, 4)]);
    let mut all: Vec<_> = queue.take_all().iter().map(|job| job.work).collect();
    all.sort_unstable();
    assert_eq!((all, queue.places.taken()), (vec![1, 2, 3, 4], 0));
    drop(waiting);
    queue.close();
    assert!(queue.next().now_or_never().flatten().is_none());
    assert!(submit(&queue, "a", 1, 5).is_err());
}
