//! Promise 8: floods and tricks of HTTP/2, as raw frames.
