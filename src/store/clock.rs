//! The service's clock. Time is read here and nowhere else.

use time::OffsetDateTime;

/// Now, in whole microseconds, which is what PostgreSQL keeps.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
#[must_use]
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

/// Now, without the fraction of a second: what an expiry, which is in whole seconds, is compared
/// with. An expiry is after now exactly when it is after this; and as SQLite keeps times as text,
/// both sides must have the same number of digits.
pub(super) fn now_in_seconds() -> OffsetDateTime {
    let now = now();
    now.replace_nanosecond(0).unwrap_or(now)
}
