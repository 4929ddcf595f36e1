//! The query's parameters. Unknown ones are ignored; a known one that comes twice is refused, as two
//! layers must never pick different copies.

use axum::http::Uri;

use super::problem::Problem;

/// The parameters that some request has.
const KNOWN: [&str; 4] = ["validateOnly", "writableFields", "pageSize", "pageToken"];

/// The known parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let Some(name) = KNOWN.into_iter().find(|known| *known == name) else { continue };
            if found.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::invalid_parameter(name, "must be there once only"));
            }
            found.push((name, value.into_owned()));
        }
        Ok(Self(found))
    }

    /// A parameter that is `true` or `false`, and false where it is not there.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid_parameter(name, "must be true or false")),
        }
    }

    /// How many entries a page is to have; 0 where nothing is said.
    pub(super) fn page_size(&self) -> Result<i32, Problem> {
        let Some(value) = self.get("pageSize") else { return Ok(0) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<i32>() {
            Ok(size) if digits && size > 0 => Ok(size),
            _ => {
                Err(Problem::invalid_parameter("pageSize", "must be a number from 1 to 2147483647"))
            }
        }
    }

    /// Where the page begins; empty: at the beginning.
    pub(super) fn page_token(&self) -> String {
        self.get("pageToken").unwrap_or_default().to_owned()
    }

    fn get(&self, name: &'static str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}
