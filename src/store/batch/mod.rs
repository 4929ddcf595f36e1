//! Batches: the queue in which work waits, and the workers that do it.

pub(super) mod health;
pub(super) mod lookups;
pub(super) mod queue;
pub(super) mod queues;
pub(super) mod worker;
pub(super) mod writes;
