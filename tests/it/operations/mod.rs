//! What operators use: commands, settings, telemetry, and the pages and files that they follow.

mod cli;
mod compose;
mod composed;
mod demo;
mod extremes;
mod guide;
mod kubernetes;
mod metrics;
mod package;
mod remote;
mod role;
mod secrets;
mod settings;
mod sslmode;
mod start;
mod systemd;
mod telemetry;
mod unreachable;
mod variables;
