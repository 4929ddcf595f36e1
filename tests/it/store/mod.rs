//! The database: batches, creations, the schema, and what waits for what.

mod batches;
mod connecting;
mod creations;
mod limits;
mod migrations;
mod places;
mod sessions;
mod upgrades;
