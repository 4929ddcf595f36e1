//! Promise 9: one request is never taken for two.
