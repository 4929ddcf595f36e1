//! Promise 16: a leader of PostgreSQL is killed, and another takes over.
