//! The change log, and those who follow it.

mod change_log;
mod streams;
mod watch;
