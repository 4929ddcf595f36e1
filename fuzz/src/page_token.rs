//! Page tokens: what is issued is taken by its own list, and nothing else by any.

use orgd::grpc::page::{after, token};

use super::refusal;

/// A token as it arrived. Its first bytes are keys of lists too.
pub fn page_token(bytes: &[u8]) {
    issued(bytes);
    let arrived = String::from_utf8_lossy(bytes);
    let lists = ["organizations", "changes-1", "changes-12"];
    let taken = lists.map(|list| match after(list, &arrived) {
        Ok(0) => {
            assert!(arrived.is_empty(), "{arrived:?} is the first page of {list}");
            true
        }
        Ok(key) => {
            assert!(key > 0);
            assert_eq!(token(list, key), arrived, "a token has one spelling");
            true
        }
        Err(error) => {
            assert_eq!(refusal(error, b""), "PAGE_TOKEN_INVALID");
            false
        }
    });
    let taken = taken.into_iter().filter(|taken| *taken).count();
    assert!(arrived.is_empty() || taken <= 1, "{arrived:?} is of two lists");
}

/// Tokens of these numbers.
fn issued(bytes: &[u8]) {
    let number = |from: usize| {
        let mut number = [0; 8];
        number.iter_mut().zip(bytes.iter().skip(from)).for_each(|(to, byte)| *to = *byte);
        i64::from_le_bytes(number).checked_abs().unwrap_or(i64::MAX).max(1)
    };
    let (key, organization) = (number(0), number(8));
    for list in ["organizations", &format!("changes-{organization}")] {
        let issued = token(list, key);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(issued.bytes().all(is_plain), "{issued} is not to be escaped in a query");
        assert_eq!(after(list, &issued).expect("an issued token"), key);
        for other in ["organization", "changes-0", "", &format!("{list}0")] {
            after(other, &issued).expect_err("a token of another list");
        }
    }
}
