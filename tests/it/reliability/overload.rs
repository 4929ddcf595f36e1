//! Promise 7: more work than the database can do.
