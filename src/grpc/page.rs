//! Pages of lists: sizes and tokens (AIP-158). A token is opaque to callers; it names its list, so
//! that one list's token is not taken for another's.

use data_encoding::BASE64URL_NOPAD;

use crate::domain::{Error, Result, Violation, reason};

const SIZE_DEFAULT: u64 = 50;
/// Organizations on a page at most.
pub(super) const ORGANIZATIONS_MAX: u64 = 1000;
/// Changes on a page at most. An entry with old and new values of the longest kind has over 4 KiB,
/// and clients take messages of 4 MiB.
pub(super) const CHANGES_MAX: u64 = 500;

/// How many entries a page has at most, of those that it may have.
pub(super) fn size(asked: i32, size_max: u64) -> Result<u64> {
    match u64::try_from(asked) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(size_max)),
        Err(_) => {
            let description = "page_size must not be negative.";
            Err(Error::invalid(Violation::new(
                "page_size",
                reason::FIELD_OUT_OF_RANGE,
                description,
            )))
        }
    }
}

/// The key after which a page begins: 0 for the first one.
pub fn after(list: &str, token: &str) -> Result<i64> {
    if token.is_empty() {
        return Ok(0);
    }
    let key = || {
        let text = String::from_utf8(BASE64URL_NOPAD.decode(token.as_bytes()).ok()?).ok()?;
        let key = text.strip_prefix(list)?.strip_prefix(':')?.parse().ok()?;
        // Only the one spelling that we issue.
        (key > 0 && self::token(list, key) == token).then_some(key)
    };
    key().ok_or_else(|| {
        let description = "page_token must be the next_page_token of a page of this list.";
        Error::invalid(Violation::new("page_token", reason::PAGE_TOKEN_INVALID, description))
    })
}

/// The token of the page after `key`.
#[must_use]
pub fn token(list: &str, key: i64) -> String {
    BASE64URL_NOPAD.encode(format!("{list}:{key}").as_bytes())
}

/// Cuts off the one entry more that was asked for; its presence means that there is a next page.
/// Answers the token of that page, or an empty one.
pub(super) fn cut<T>(
    list: &str,
    entries: &mut Vec<T>,
    size: u64,
    key: impl Fn(&T) -> i64,
) -> String {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if entries.len() <= size {
        return String::new();
    }
    entries.truncate(size);
    entries.last().map(|last| token(list, key(last))).unwrap_or_default()
}
