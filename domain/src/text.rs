//! The value of a text field, parsed once where a call comes in, and trusted after.

use super::{
    error::{Violation, reason},
    fields::{Field, TEXT_CODE_POINTS_MAX},
};

/// The value of a text field: 1 to [`TEXT_CODE_POINTS_MAX`] code points, not blank, no control characters.
/// Kept as it was sent: never trimmed, never normalized (AIP-210).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The value, or the rule of `field` that it breaks.
    pub fn parse(field: Field, value: String) -> Result<Self, Violation> {
        let path = field.path();
        if value.chars().all(char::is_whitespace) {
            let description = format!("{path} must not be empty or blank.");
            return Err(Violation::of_field(field, reason::FIELD_BLANK, description));
        }
        if value.chars().any(char::is_control) {
            let description = format!("{path} must not contain control characters.");
            return Err(Violation::of_field(field, reason::FIELD_CONTROL_CHARACTER, description));
        }
        let code_points = value.chars().count();
        if code_points > TEXT_CODE_POINTS_MAX {
            let description = format!(
                "{path} must have at most {TEXT_CODE_POINTS_MAX} characters; it has {code_points}."
            );
            return Err(Violation::of_field(field, reason::FIELD_TOO_LONG, description));
        }
        Ok(Self(value))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_as_it_was_sent_or_refused_for_one_rule() {
        // Of two bytes each: characters are counted.
        let [longest, too_long] = [0, 1].map(|more| "é".repeat(TEXT_CODE_POINTS_MAX + more));
        for (value, refused) in [
            ("a", None),
            (" a ", None),
            ("e\u{301}", None),
            (&longest, None),
            ("", Some(reason::FIELD_BLANK)),
            (" \u{3000}", Some(reason::FIELD_BLANK)),
            ("\t\n", Some(reason::FIELD_BLANK)),
            ("a\nb", Some(reason::FIELD_CONTROL_CHARACTER)),
            ("a\0", Some(reason::FIELD_CONTROL_CHARACTER)),
            ("\u{85}a", Some(reason::FIELD_CONTROL_CHARACTER)),
            (&too_long, Some(reason::FIELD_TOO_LONG)),
        ] {
            match Text::parse(Field::Name, value.to_owned()) {
                Ok(text) => assert_eq!((text.as_str(), None), (value, refused)),
                Err(violation) => {
                    assert_eq!(violation.path, "organization.name");
                    assert_eq!(Some(violation.reason), refused, "{value:?}");
                }
            }
        }
    }
}
