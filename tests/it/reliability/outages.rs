//! Promise 4: a database that refuses, is silent or slow.
