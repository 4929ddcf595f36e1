//! The JSON of a body, read in one pass without a tree. Ignored members are read too: two layers must never read
//! one body differently (RFC 7493), so duplicate keys and invalid text are refused everywhere.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::domain::fields::{Change, Field, Fields};
use crate::gateway::write::{
    field_error::FieldError,
    problem::{ERRORS_MAX, Problem},
};

/// What a body says of each field: a member that is not there keeps it, `null` clears it (RFC 7396).
pub(crate) type OrganizationBody = Fields<Change<String>>;

/// A refusal lists every member at fault; with `strict`, also those that would be ignored.
pub(crate) fn read_update(
    bytes: &[u8],
    id: i64,
    strict: bool,
) -> Result<OrganizationBody, Problem> {
    let mut read = read(bytes, strict)?;
    if read.id.as_ref().is_some_and(|named| *named != Scalar::Integer(id)) {
        read.errors.push(FieldError::id_differs());
    }
    read.checked()
}

/// An `id` in the body is ignored, as the service chooses one.
pub(crate) fn read_creation(bytes: &[u8], strict: bool) -> Result<OrganizationBody, Problem> {
    let mut read = read(bytes, strict)?;
    if strict && read.id.is_some() {
        read.errors.push(FieldError::not_updated("id"));
    }
    read.checked()
}

fn read(bytes: &[u8], strict: bool) -> Result<Document, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::not_an_object());
    }
    let mut document = Document::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_map(Reader(|key: &str, value| document.set(key, value)));
    read.and_then(|_| json.end()).map_err(|error| {
        // The only error of content is that of a duplicate key (`Reader`).
        if error.is_data() {
            Problem::duplicate_key(error.line(), error.column())
        } else {
            Problem::malformed_json(error.line(), error.column())
        }
    })?;
    if strict {
        document.errors.extend(document.ignored.iter().map(|key| FieldError::not_updated(key)));
    }
    Ok(document)
}

#[derive(Debug, Default)]
struct Document {
    body: OrganizationBody,
    id: Option<Scalar>,
    /// Keys of members that are not defined for a change, as many as a refusal lists.
    ignored: Vec<String>,
    errors: Vec<FieldError>,
}

impl Document {
    fn checked(self) -> Result<OrganizationBody, Problem> {
        if self.errors.is_empty() { Ok(self.body) } else { Err(Problem::invalid_body(self.errors)) }
    }

    fn set(&mut self, key: &str, value: Scalar) {
        if key == "id" {
            return self.id = Some(value);
        }
        let Some(field) = Field::named(key) else {
            // Only defined fields are updated; all others are ignored, as docs/API.md says.
            self.ignored.push(key.to_owned());
            return self.ignored.truncate(ERRORS_MAX);
        };
        let change = self.body.get_mut(field);
        if *change != Change::Keep {
            self.errors.push(FieldError::two_spellings(key));
            return;
        }
        match value {
            Scalar::Null => *change = Change::Clear,
            Scalar::Text(text) => *change = Change::Set(text),
            Scalar::Integer(_) | Scalar::Other => self.errors.push(FieldError::not_a_string(key)),
        }
    }
}

/// A JSON value, kept as far as a member of a body needs it.
#[derive(Debug, PartialEq, Eq)]
enum Scalar {
    Null,
    Text(String),
    Integer(i64),
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(|_: &str, _| ()))
    }
}

/// Reads a value, and tells each member where it is an object.
struct Reader<F>(F);

impl<'de, F: FnMut(&str, Scalar)> Visitor<'de> for Reader<F> {
    type Value = Scalar;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(number.try_into().map_or(Scalar::Other, Scalar::Integer))
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "a whole number that a float holds exactly"
    )]
    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
        // 90.0 and 90 are one number (JSON Schema, I-JSON).
        let is_whole = number.fract() == 0.0 && number.abs() <= EXACT_MAX;
        Ok(if is_whole { Scalar::Integer(number as i64) } else { Scalar::Other })
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<Scalar>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Scalar, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, value)) = object.next_entry::<String, Scalar>()? {
            (self.0)(&key, value);
            if !keys.insert(key) {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Scalar::Other)
    }
}
