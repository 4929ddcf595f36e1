//! Which filters of log lines can be meant. Any word is a target to the filter, so a misspelt one would silence
//! everything; a target is therefore looked for among the crates of this binary.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, filter::Directive};

use super::values::may_be_url;

const CRATES: &str = include_str!("../../Cargo.lock");

/// What follows `orgd::` in our own targets: the rooms, and those that have a name of their own.
const OURS: &str = "app audit auth cli config gateway grpc proto rate_limit request server \
    store telemetry";

const LEVELS: &str = "off, error, warn, info, debug and trace";

/// A filter without its spaces, or why it cannot be meant.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    if may_be_url(text) {
        return Err(format!("is no filter such as warn,orgd=info; levels are {LEVELS}"));
    }
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    // With a space in it the filter's own parser reads the wrong letters.
    let directives: Vec<_> = directives.collect();
    if directives.is_empty() {
        return Err(format!("is empty; leave it unset for the default, or say a level: {LEVELS}"));
    }
    directives.iter().copied().try_for_each(check)?;
    let filter = directives.join(",");
    filter.parse::<EnvFilter>().map_err(|error| error.to_string())?;
    Ok(filter)
}

fn check(directive: &str) -> Result<(), String> {
    if directive.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    if directive.ends_with('=') || directive.parse::<Directive>().is_err() {
        return Err(format!("{directive} is no directive such as orgd=info; levels are {LEVELS}"));
    }
    let target = directive.split(['=', '[']).next().unwrap_or_default();
    if target.is_empty() || is_known(target) {
        return Ok(());
    }
    Err(format!("{target} is neither a level ({LEVELS}) nor a part of orgd or of a crate in it"))
}

fn is_known(target: &str) -> bool {
    let mut parts = target.split("::");
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if first == "orgd" {
        return second.is_none_or(|second| OURS.split(' ').any(|ours| ours == second));
    }
    let names = CRATES.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    // Some crates log under the name of their package, and most under that of their library.
    let first = first.replace('-', "_");
    names.map(|name| name.replace('-', "_")).any(|name| name == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for good in [
            "info",
            "OFF",
            "3",
            "warn,orgd=info",
            "orgd",
            "orgd::request=info",
            "orgd::store::worker=trace",
            "orgd_migrations=debug",
            "orgd_listener=debug",
            "orgd_listener::connection=trace",
            "opentelemetry-otlp=debug",
            "opentelemetry_sdk",
            "sqlx::query=info,h2=off,tonic_health=info",
            "[request]=debug",
            "orgd::grpc[call{method}]=trace",
        ] {
            assert_eq!(log_filter(good), Ok(good.to_owned()));
        }
        assert_eq!(log_filter(" warn, orgd=debug,"), Ok("warn,orgd=debug".to_owned()));
        for (bad, sentence) in [
            ("", "is empty"),
            (" ,, ", "is empty"),
            ("inof", "inof is neither a level"),
            ("warning", "warning is neither a level"),
            ("warn,inof", "inof is neither a level"),
            ("ordg=info", "ordg is neither a level"),
            ("orgd_listner=info", "orgd_listner is neither a level"),
            ("orgd::reqest=info", "orgd::reqest is neither a level"),
            ("orgd.request=info", "orgd.request is neither a level"),
            ("orgd:request=info", "orgd:request is neither a level"),
            ("orgd=inof", "orgd=inof is no directive"),
            ("orgd=", "orgd= is no directive"),
            ("orgd=info=debug", "is no directive"),
            ("orgd info", "orgd info is neither a level"),
            ("info;orgd=debug", "info;orgd is neither a level"),
            ("7", "7 is neither a level"),
            ("*", "* is no directive"),
            ("[request", "is no directive"),
            ("postgres://odd:StormPetrel@db", "is no filter such as"),
        ] {
            let refused = log_filter(bad).expect_err(bad);
            assert!(refused.contains(sentence), "{bad}: {refused}");
        }
    }

    #[test]
    fn every_room_is_a_target() {
        let rooms = include_str!("../lib.rs").lines();
        let rooms = rooms.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        assert!(rooms.clone().count() > 9);
        for room in rooms {
            assert!(is_known(&format!("orgd::{room}::part")), "{room}");
        }
    }
}
