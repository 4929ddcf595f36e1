//! Pages of lists: sizes and tokens (AIP-158). A token names its list, so no other list takes it.

use data_encoding::BASE64URL_NOPAD;

use crate::domain::{Error, Page, PageSize, Result, reason};

const SIZE_DEFAULT: usize = 50;
pub(super) const ORGANIZATIONS_MAX: usize = 1000;
pub(super) const CHANGES_MAX: usize = 500;
/// Bytes of texts on a page at most: an answer that nobody takes is in memory.
const BYTES_MAX: usize = 128 * 1024;

pub(super) fn size(asked: i32, entries_max: usize) -> Result<PageSize> {
    let sized = |entries| PageSize { entries, bytes: BYTES_MAX };
    match usize::try_from(asked) {
        Ok(0) => Ok(sized(SIZE_DEFAULT)),
        Ok(asked) => Ok(sized(asked.min(entries_max))),
        Err(_) => {
            let description = "page_size must not be negative.";
            Err(Error::invalid("page_size", reason::FIELD_OUT_OF_RANGE, description))
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
        Error::invalid("page_token", reason::PAGE_TOKEN_INVALID, description)
    })
}

#[must_use]
pub fn token(list: &str, key: i64) -> String {
    BASE64URL_NOPAD.encode(format!("{list}:{key}").as_bytes())
}

/// The token of the page after this one; empty: there is none.
pub(super) fn next_token<T>(list: &str, page: &Page<T>, key: impl Fn(&T) -> i64) -> String {
    let end = page.entries.last().filter(|_| page.has_more);
    end.map(|entry| token(list, key(entry))).unwrap_or_default()
}
