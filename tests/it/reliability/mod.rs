//! The promises of `docs/RELIABILITY.md`, by their numbers, in a quick form. What takes longer is
//! ignored here and run by `make soak`.

mod attacks;
mod authorization;
mod caller;
mod contention;
mod crashes;
mod disk;
mod failover;
mod faults;
mod files;
mod fuzzing;
mod indistinguishable;
mod ledger;
mod linearizable;
mod load;
pub mod offender;
mod outages;
mod overload;
mod panics;
mod portability;
mod revocation;
pub mod rolling;
mod sessions;
mod simulation;
mod slow_clients;
mod smuggling;
mod smuggling_http2;
mod upgrades;
