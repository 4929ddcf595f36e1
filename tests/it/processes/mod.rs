//! The serving processes: how they start, work together, and stop.

mod instances;
mod signals;
mod stopping;
