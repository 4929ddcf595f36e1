//! Promise 8: clients that send, or read, as slowly as they may.
