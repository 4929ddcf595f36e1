//! Variables that look like settings and are none: whoever set them believes that they count.

use std::{collections::BTreeSet, env};

use clap::Command;

/// What Kubernetes sets in every container beside a service with the name `orgd`.
const OF_KUBERNETES: [&str; 2] = ["ORGD_PORT", "ORGD_SERVICE_"];

/// Each variable that is no setting of any command, and the setting whose name is nearest.
#[must_use]
pub fn misspelt(command: &Command) -> Vec<(String, String)> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let names = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = names.filter_map(|(name, _)| name.into_string().ok());
    names
        .filter(|name| name.starts_with("ORGD_") && !known.contains(name))
        .filter(|name| !OF_KUBERNETES.iter().any(|start| name.starts_with(start)))
        .filter_map(|name| Some((name.clone(), nearest(&name, &known)?)))
        .collect()
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|inner| collect(inner, known));
}

fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    known.iter().min_by_key(|other| strsim::damerau_levenshtein(name, other)).cloned()
}
