//! Promise 10: whatever the fuzzers found stays mended.
