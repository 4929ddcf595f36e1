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

#[cfg(test)]
mod tests {
    use super::*;

    /// The path and the reason of the one rule that a call broke.
    fn broken<T>(result: Result<T>) -> std::result::Result<T, (String, &'static str)> {
        result.map_err(|error| match error {
            Error::Invalid(broken) if broken.len() == 1 => {
                (broken[0].path.clone().into_owned(), broken[0].reason)
            }
            other => panic!("{other}"),
        })
    }

    #[test]
    fn a_page_has_what_is_asked_for_up_to_the_list_s_most_and_fifty_where_nothing_is() {
        let negative = || Err(("page_size".to_owned(), reason::FIELD_OUT_OF_RANGE));
        for (asked, of_organizations, of_changes) in [
            (0, Ok(50), Ok(50)),
            (1, Ok(1), Ok(1)),
            (50, Ok(50), Ok(50)),
            (499, Ok(499), Ok(499)),
            (500, Ok(500), Ok(500)),
            (501, Ok(501), Ok(500)),
            (1000, Ok(1000), Ok(500)),
            (1001, Ok(1000), Ok(500)),
            (i32::MAX, Ok(1000), Ok(500)),
            (-1, negative(), negative()),
            (i32::MIN, negative(), negative()),
        ] {
            for (max, expected) in
                [(ORGANIZATIONS_MAX, of_organizations), (CHANGES_MAX, of_changes)]
            {
                let expected = expected.map(|entries| PageSize { entries, bytes: 131_072 });
                assert_eq!(broken(size(asked, max)), expected, "{asked} of {max}");
            }
        }
    }

    #[test]
    fn a_token_is_taken_by_its_list_alone_and_in_the_one_spelling_that_was_issued() {
        let encoded = |text: &[u8]| BASE64URL_NOPAD.encode(text);
        let issued = token("changes-90", 7);
        // 13 bytes: the last of its characters has 4 bits that mean nothing.
        let loose = token("changes-90", 50);
        let (start, last) = loose.split_at(loose.len() - 1);
        assert_eq!((issued.as_str(), last), ("Y2hhbmdlcy05MDo3", "A"));
        for (token, expected) in [
            (String::new(), Some(0)),
            (issued.clone(), Some(7)),
            (loose.clone(), Some(50)),
            (token("changes-90", 1), Some(1)),
            (token("changes-90", i64::MAX), Some(i64::MAX)),
            (encoded(b"changes-90:9223372036854775808"), None),
            (encoded(b"changes-90:99999999999999999999999999"), None),
            (token("changes-90", 0), None),
            (token("changes-90", -1), None),
            (token("changes-90", i64::MIN), None),
            // Lists with another name, or with one that begins or ends alike.
            (token("organizations", 7), None),
            (token("changes-9", 7), None),
            (token("changes-900", 7), None),
            (token("changes-90:7", 7), None),
            (token("Changes-90", 7), None),
            (token("", 7), None),
            // Other spellings of 7.
            (encoded(b"changes-90:07"), None),
            (encoded(b"changes-90:+7"), None),
            (encoded(b"changes-90: 7"), None),
            (encoded(b"changes-90:7 "), None),
            (encoded(b"changes-90:7.0"), None),
            (encoded(b"changes-90:7\0"), None),
            (encoded("changes-90:\u{667}".as_bytes()), None),
            (encoded(b"changes-90:"), None),
            (encoded(b"changes-90"), None),
            (encoded(b"changes-907"), None),
            (encoded(b"changes-90:7\xff"), None),
            // Other spellings of the bytes.
            (format!("{start}B"), None),
            (format!("{loose}="), None),
            (format!("{loose}=="), None),
            (format!("{issued}="), None),
            (format!(" {issued}"), None),
            (format!("{issued}\n"), None),
            (format!("{issued}A"), None),
            (issued.to_lowercase(), None),
            (format!("{issued}{issued}"), None),
            (issued.split_at(issued.len() - 1).0.to_owned(), None),
            ("changes-90:7".to_owned(), None),
            ("7".to_owned(), None),
            (" ".to_owned(), None),
            ("\u{e9}".to_owned(), None),
            ("A".repeat(1_000_000), None),
        ] {
            let expected =
                expected.ok_or_else(|| ("page_token".to_owned(), reason::PAGE_TOKEN_INVALID));
            let shown: String = token.chars().take(60).collect();
            assert_eq!(broken(after("changes-90", &token)), expected, "{shown:?}");
        }
    }

    #[test]
    fn no_changed_byte_of_a_token_leads_to_another_list_or_to_the_same_page() {
        let issued = token("organizations", 40);
        for at in 0..issued.len() {
            for byte in 0..=0x7f_u8 {
                let mut bytes = issued.clone().into_bytes();
                let before = std::mem::replace(&mut bytes[at], byte);
                let changed = String::from_utf8(bytes).unwrap();
                let (read, is_changed) = (after("organizations", &changed), before != byte);
                // A digit may become another one: a token is no secret, and names where a page begins.
                let is_fit = read.as_ref().map_or(is_changed, |key| (*key != 40) == is_changed);
                assert!(is_fit, "{changed:?}: {read:?}");
                assert!(after("changes-90", &changed).is_err(), "{changed:?}");
            }
        }
    }

    #[test]
    fn a_page_has_a_next_token_where_more_entries_follow_its_last() {
        for (entries, has_more, expected) in [
            (&[][..], false, None),
            (&[], true, None),
            (&[3], false, None),
            (&[3], true, Some(3)),
            (&[3, 5, 9], true, Some(9)),
            (&[3, 5, 9], false, None),
        ] {
            let page = Page { entries: entries.to_vec(), has_more };
            let next = next_token("organizations", &page, |entry| *entry);
            let expected = expected.map(|key| token("organizations", key)).unwrap_or_default();
            assert_eq!(next, expected, "{page:?}");
        }
    }
}
