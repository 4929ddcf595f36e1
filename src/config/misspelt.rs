//! Variables that look like settings and are none: whoever set them believes that they count.

use std::{collections::BTreeSet, env};

use clap::Command;

/// What Kubernetes sets in every container beside a service with the name `orgd`.
const OF_KUBERNETES: [&str; 2] = ["ORGD_PORT", "ORGD_SERVICE_"];

/// Letters in which a misspelt name differs at most.
const DISTANCE_MAX: usize = 2;

/// Each variable that is no setting of any command, and the setting that may be meant.
#[must_use]
pub fn misspelt(command: &Command) -> Vec<(String, Option<String>)> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let names = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = names.filter_map(|(name, _)| name.into_string().ok());
    names
        .filter(|name| name.starts_with("ORGD_") && !known.contains(name))
        .filter(|name| !OF_KUBERNETES.iter().any(|start| name.starts_with(start)))
        .map(|name| (name.clone(), nearest(&name, &known)))
        .collect()
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|inner| collect(inner, known));
}

/// A slip of the fingers, else a name that is cut or goes on; none where whoever set it may have meant anything.
fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let by_distance = |one: &&String| strsim::damerau_levenshtein(name, one);
    let is_alike = |one: &&String| one.starts_with(name) || name.starts_with(one.as_str());
    let closest = known.iter().min_by_key(by_distance);
    let closest = closest.filter(|one| by_distance(one) <= DISTANCE_MAX);
    closest.or_else(|| known.iter().filter(is_alike).min_by_key(by_distance)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        let known = ["DATABASE_URL", "DATABASE_URL_FILE", "GRPC_ADDR", "LOG", "LOG_FORMAT"];
        let known = known.into_iter().chain(["TLS_CERT", "TLS_KEY", "SERVER"]);
        let known: BTreeSet<_> = known.map(|name| format!("ORGD_{name}")).collect();
        for (name, expected) in [
            ("DATABASE_ULR", Some("DATABASE_URL")),
            ("DATABASE", Some("DATABASE_URL")),
            ("GRPC", Some("GRPC_ADDR")),
            ("GRPC_ADDRESS", Some("GRPC_ADDR")),
            ("LOG_LEVEL", Some("LOG")),
            ("LOG_FROMAT", Some("LOG_FORMAT")),
            ("TLS_CERTIFICATE", Some("TLS_CERT")),
            ("SERVER_URL", Some("SERVER")),
            ("PASSWORD", None),
            ("HTTP", None),
        ] {
            let found = nearest(&format!("ORGD_{name}"), &known);
            assert_eq!(found, expected.map(|name| format!("ORGD_{name}")), "{name}");
        }
    }
}
