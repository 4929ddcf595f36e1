//! The organization that a path names.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::{domain::fields::ID_MAX, gateway::write::problem::Problem};

/// One spelling of each id, whose digits may be percent-encoded. axum's own parameters are decoded already, or
/// refused in its words.
pub(crate) fn organization_id(uri: &Uri) -> Result<i64, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    let segment = percent_decode_str(segment).decode_utf8_lossy();
    let canonical = segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.starts_with('0');
    let id = segment.parse().ok().filter(|id| canonical && (1..=ID_MAX).contains(id));
    id.ok_or_else(Problem::malformed_id)
}

#[cfg(test)]
mod tests {
    use super::organization_id;

    #[test]
    fn an_id_has_one_spelling_but_for_percent_encoding() {
        for (segment, expected) in [
            ("90", Some(90)),
            ("%39%30", Some(90)),
            ("1", Some(1)),
            ("9007199254740991", Some(9_007_199_254_740_991)),
            ("9007199254740991/changes", Some(9_007_199_254_740_991)),
            ("9007199254740992", None),
            ("99999999999999999999", None),
            ("0", None),
            ("090", None),
            ("+90", None),
            ("-90", None),
            ("90.0", None),
            ("9e1", None),
            ("%2090", None),
            ("%FF", None),
            ("%D9%A9", None),
            ("x", None),
            ("", None),
        ] {
            let uri = format!("/v1/organizations/{segment}?id=7").parse().unwrap();
            assert_eq!(organization_id(&uri).ok(), expected, "{segment}");
        }
        assert!(organization_id(&"/v1/organizations".parse().unwrap()).is_err());
    }
}
