//! Promise 14: rights are checked on the state that is written, and tell nothing of foreign organizations.
