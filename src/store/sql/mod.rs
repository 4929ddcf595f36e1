//! The statements of batches, and what they share. What differs between the databases is in `postgres` and
//! `sqlite`.

pub(super) mod create;
pub(super) mod pending;
pub(super) mod postgres;
pub(super) mod predicates;
pub(super) mod row;
pub(super) mod sqlite;
pub(super) mod update;
