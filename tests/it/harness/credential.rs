//! Credentials that end during a test.

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::orgd;

/// How long a credential holds at first, and at last.
const SECONDS: [i64; 4] = [3, 6, 12, 24];

/// Issues a credential that ends soon, and does something with its secret before its end: where that
/// came too late, the whole is done again with one that holds longer. Answers the secret, the end, and
/// what was done.
pub async fn ending_soon<T>(
    database_url: &str,
    words: &str,
    before: impl AsyncFn(&str) -> T,
) -> (String, OffsetDateTime, T) {
    for seconds in SECONDS {
        let words = format!("credential issue {words} --expires-in {seconds}s --json");
        let issued = orgd(database_url, &words).json();
        let text = |key: &str| issued[key].as_str().unwrap().to_owned();
        let end = OffsetDateTime::parse(&text("expiresAt"), &Rfc3339).unwrap();
        let done = before(&text("secret")).await;
        // Ends are kept in whole seconds.
        if orgd::store::now() < end - Duration::SECOND {
            return (text("secret"), end, done);
        }
    }
    panic!("nothing can be done within {SECONDS:?} seconds");
}
