//! What operators use: commands, settings, telemetry, and the pages and files that they follow.

mod cli;
mod compose;
mod demo;
mod extremes;
mod guide;
mod metrics;
mod remote;
mod secrets;
mod settings;
mod start;
mod telemetry;
mod unreachable;
mod variables;
