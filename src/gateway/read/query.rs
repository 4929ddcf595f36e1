//! The query's parameters. A known one that comes twice is refused: two layers must never pick different copies.

use axum::http::Uri;

use crate::gateway::write::problem::Problem;

const KNOWN: [&str; 5] = ["validateOnly", "writableFields", "pageSize", "pageToken", "lastEventId"];

#[derive(Debug)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(crate) fn read(uri: &Uri) -> Result<Self, Problem> {
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

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid_parameter(name, "must be true or false")),
        }
    }

    /// How many entries a page is to have; 0 where nothing is said.
    pub(crate) fn page_size(&self) -> Result<i32, Problem> {
        let Some(value) = self.get("pageSize") else { return Ok(0) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<i32>() {
            Ok(size) if digits && size > 0 => Ok(size),
            _ => {
                Err(Problem::invalid_parameter("pageSize", "must be a number from 1 to 2147483647"))
            }
        }
    }

    pub(crate) fn page_token(&self) -> String {
        self.get("pageToken").unwrap_or_default().to_owned()
    }

    /// The version after which events begin.
    pub(crate) fn last_event_id(&self) -> Result<Option<i64>, Problem> {
        let Some(value) = self.get("lastEventId") else { return Ok(None) };
        let version = value.parse::<i64>().ok().filter(|version| *version >= 0);
        let rule = "must be the version of a change: a number that is not negative";
        version.map(Some).ok_or_else(|| Problem::invalid_parameter("lastEventId", rule))
    }

    fn get(&self, name: &'static str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    fn read(query: &str) -> Option<Query> {
        Query::read(&format!("/v1/organizations?{query}").parse().unwrap()).ok()
    }

    #[test]
    fn a_known_parameter_is_there_once_and_an_unknown_one_is_ignored() {
        for (query, is_read) in [
            ("", true),
            ("validateOnly=true", true),
            ("x=1&x=2", true),
            ("ValidateOnly=x&validateOnly=true", true),
            ("pageSize=1&pageSize=1", false),
            ("pageSize=1&page%53ize=1", false),
            ("pageToken&pageToken=", false),
        ] {
            assert_eq!(read(query).is_some(), is_read, "{query}");
        }
    }

    #[test]
    fn a_flag_is_true_or_false_and_nothing_else() {
        for (query, expected) in [
            ("", Some(false)),
            ("validateOnly=false", Some(false)),
            ("validateOnly=true", Some(true)),
            ("validateOnly=tru%65", Some(true)),
            ("validateOnly", None),
            ("validateOnly=", None),
            ("validateOnly=True", None),
            ("validateOnly=1", None),
        ] {
            assert_eq!(read(query).unwrap().flag("validateOnly").ok(), expected, "{query}");
        }
    }

    #[test]
    fn a_page_size_is_a_positive_number() {
        for (query, expected) in [
            ("", Some(0)),
            ("pageSize=1", Some(1)),
            ("pageSize=007", Some(7)),
            ("pageSize=2147483647", Some(i32::MAX)),
            ("pageSize=2147483648", None),
            ("pageSize=0", None),
            ("pageSize=-1", None),
            ("pageSize=%2B1", None),
            ("pageSize=+1", None),
            ("pageSize=1.0", None),
            ("pageSize=", None),
        ] {
            assert_eq!(read(query).unwrap().page_size().ok(), expected, "{query}");
        }
    }

    #[test]
    fn a_last_event_is_the_version_of_a_change() {
        for (query, expected) in [
            ("", Some(None)),
            ("lastEventId=0", Some(Some(0))),
            ("lastEventId=9223372036854775807", Some(Some(i64::MAX))),
            ("lastEventId=9223372036854775808", None),
            ("lastEventId=-1", None),
            ("lastEventId=", None),
        ] {
            assert_eq!(read(query).unwrap().last_event_id().ok(), expected, "{query}");
        }
    }

    #[test]
    fn a_page_token_is_whatever_is_there() {
        for (query, expected) in
            [("", ""), ("pageToken", ""), ("pageToken=b3Jn", "b3Jn"), ("pageToken=a%26b", "a&b")]
        {
            assert_eq!(read(query).unwrap().page_token(), expected, "{query}");
        }
    }
}
