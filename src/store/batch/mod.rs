//! What is done together: the queue in which work waits, and the lanes that do it.

pub(super) mod health;
pub(super) mod lane;
pub(super) mod queue;
pub(super) mod reader;
pub(super) mod writer;
