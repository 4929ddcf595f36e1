//! What of a setting may be a secret, and is not to be shown.

/// Whether a text may be a URL, whose parts may be secrets.
pub(super) fn may_be_url(text: &str) -> bool {
    text.contains('@') || text.contains("://")
}
