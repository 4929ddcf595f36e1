//! Promise 12: instances are replaced behind a proxy, and no request fails.
