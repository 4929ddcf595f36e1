//! What an update asks of the organization's etag where that is more than to be one.

use super::Etag;

/// A condition on the etag that an organization has (RFC 9110 §13.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtagCondition {
    OneOf(Vec<Etag>),
    NoneOf(Vec<Etag>),
}

impl EtagCondition {
    /// The condition that a text is: `"3", "5"` or `!"3", "5"`. None where it is at most one tag. Tags that
    /// we never issue are tags of nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tags = |text: &str| text.split(',').filter_map(|tag| Etag::parse(tag.trim())).collect();
        match text.strip_prefix('!') {
            Some(text) => Some(Self::NoneOf(tags(text))),
            None if text.contains(',') => Some(Self::OneOf(tags(text))),
            None => None,
        }
    }

    /// The one etag that an update of an organization with this one must ask for.
    #[must_use]
    pub fn etag(&self, current: Etag) -> Etag {
        let is_met = match self {
            Self::OneOf(tags) => tags.contains(&current),
            Self::NoneOf(tags) => !tags.contains(&current),
        };
        if is_met { current } else { Etag::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_met_by_the_tags_that_it_says() {
        let five = Etag::from_version(5);
        for (text, is_met) in [
            ("", None),
            ("\"5\"", None),
            ("5", None),
            ("\"3\",\"5\"", Some(true)),
            ("\"3\", \"5\"", Some(true)),
            ("\"3\", 5", Some(false)),
            ("\"3\", W/\"5\"", Some(false)),
            ("\"3\",", Some(false)),
            (",", Some(false)),
            ("!", Some(true)),
            ("!\"5\"", Some(false)),
            ("!\"3\", \"5\"", Some(false)),
            ("!\"3\", \"4\"", Some(true)),
        ] {
            let condition = EtagCondition::parse(text);
            let found = condition.map(|condition| condition.etag(five) == five);
            assert_eq!(found, is_met, "{text}");
        }
    }
}
