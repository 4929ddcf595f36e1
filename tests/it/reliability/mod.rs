//! Promises of `docs/RELIABILITY.md` about faults, load and the database, by their numbers, in a quick form. Longer
//! forms are ignored here and run by `make soak`. Promises about listeners, access and the schema are in the folders of
//! these subjects.

mod caller;
mod contention;
mod crashes;
mod disk;
mod failover;
mod faults;
mod files;
mod fuzzing;
mod ledger;
mod linearizable;
mod load;
mod outages;
mod overload;
mod panics;
mod portability;
mod rolling;
mod sessions;
mod simulation;
