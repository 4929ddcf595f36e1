//! The settings file: TOML, flat, each key a setting. What it gives becomes the default of the
//! arguments, so that flags and variables come before it and are checked in the same way.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command};
use toml::Value;

/// The name of the command that has every setting.
const EVERY_SETTING: &str = "config";

/// A command line that was read, and where its settings came from.
#[derive(Debug)]
pub struct Settings {
    /// The command, with the file's values as defaults.
    pub command: Command,
    /// What was given.
    pub matches: ArgMatches,
    /// The settings file and its keys, where there is one.
    pub file: Option<(PathBuf, BTreeMap<String, String>)>,
}

/// Reads the command line, the environment, and the settings file that either of them names. Ends
/// the process where clap does: at a mistake in the first two, and for help.
pub fn read(command: Command, words: &[OsString]) -> Result<Settings> {
    // Whoever wants to see the settings need not have all of them.
    let command =
        command.mut_subcommand(EVERY_SETTING, |inner| changed(inner, &|arg| arg.required(false)));
    // What is missing may be in the file. Any other mistake, and help, are the command's to say.
    let first = changed(command.clone(), &|arg| arg.required(false)).try_get_matches_from(words);
    let path = first.ok().and_then(|first| deepest(&first).get_one::<PathBuf>("config").cloned());
    let Some(path) = path else {
        let matches = command.clone().get_matches_from(words);
        return Ok(Settings { command, matches, file: None });
    };
    let values = values(&path, &command)?;
    let with_default = |arg: Arg| match is_setting(&arg).then(|| values.get(arg.get_id().as_str()))
    {
        Some(Some(value)) => arg.required(false).default_value(value.clone()),
        _ => arg,
    };
    let command = changed(command, &with_default);
    let matches = command.clone().get_matches_from(words);
    Ok(Settings { command, matches, file: Some((path, values)) })
}

/// The command that has every setting.
pub(super) fn command_with_every_setting(command: &Command) -> Result<&Command> {
    command.find_subcommand(EVERY_SETTING).context("there is no command that has every setting")
}

/// Whether an argument is a setting, which has a variable and may be in the file.
pub(super) fn is_setting(arg: &Arg) -> bool {
    arg.get_env().is_some()
}

/// The matches of the innermost subcommand.
pub(super) fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| deepest(inner))
}

fn changed(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    command.mut_args(change).mut_subcommands(|inner| changed(inner, change))
}

/// The file's values as a flag has them, each of which was tried on the command that has every
/// setting.
fn values(path: &Path, command: &Command) -> Result<BTreeMap<String, String>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let table: toml::Table = text.parse().with_context(|| format!("{name} is not TOML"))?;
    let mut built = command.clone();
    // Hands the arguments that all commands have to each of them.
    built.build();
    let all = command_with_every_setting(&built)?;
    let mut words = vec![command.get_name().to_owned(), all.get_name().to_owned()];
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let is_known = |arg: &&Arg| is_setting(arg) && arg.get_id() == key.as_str();
        let Some(arg) = all.get_arguments().find(is_known).filter(|arg| *arg.get_id() != "config")
        else {
            bail!("{name}: there is no setting {key}; `orgd config` lists all that there are");
        };
        let value = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            _ => bail!("{name}: {key} must be a text, a number, true or false"),
        };
        words.push(format!("--{}={value}", arg.get_long().unwrap_or_default()));
        values.insert(key, value);
    }
    // The environment has no say in whether the file is right.
    let tried = changed(command.clone(), &|arg| arg.required(false).env(None::<&str>));
    if let Err(error) = tried.try_get_matches_from(words) {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        bail!("{name}: {first}");
    }
    Ok(values)
}
