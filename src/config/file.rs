//! The settings file: flat TOML. Its values become defaults of the arguments, so flags and variables win.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{
    Arg, ArgMatches, Command,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use toml::Value;

use super::values::may_be_url;

const EVERY_SETTING: &str = "config";

/// A command line that was read, and where its settings came from.
#[derive(Debug)]
pub struct Settings {
    pub command: Command,
    pub matches: ArgMatches,
    /// The settings file and its keys, where there is one.
    pub file: Option<(PathBuf, BTreeMap<String, String>)>,
}

impl Settings {
    /// Whether a flag, a variable or the file says it, and not its default alone.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        let is_in_file = self.file.as_ref().is_some_and(|(_, values)| values.contains_key(key));
        let source = deepest(&self.matches).value_source(key);
        is_in_file || is_explicit(source)
    }
}

/// Mistakes in the command line or the environment, and help, are clap's errors.
pub fn read(command: Command, words: &[OsString]) -> Result<Settings> {
    // Help is the same wherever it is read: what a variable has is nobody's to see.
    let command = changed(command, &|arg| arg.hide_env_values(true));
    // Whoever wants to see the settings need not have all of them.
    let command =
        command.mut_subcommand(EVERY_SETTING, |inner| changed(inner, &|arg| arg.required(false)));
    // What is missing may be in the file. Any other mistake, and help, are the command's to say.
    let first = matches(&changed(command.clone(), &|arg| arg.required(false)), words).ok();
    let first = first.as_ref().map(deepest);
    let path = first.and_then(|first| first.get_one::<PathBuf>("config").cloned());
    let Some(path) = path else {
        let matches = matches(&command, words)?;
        return Ok(Settings { command, matches, file: None });
    };
    let values = values(&path, &command)?;
    // The file's `x_file` gives way to an `x` that comes before the file.
    let is_said_otherwise = |key: &str| {
        let base = key.strip_suffix("_file");
        base.zip(first).is_some_and(|(base, first)| {
            first.ids().any(|id| id == base) && is_explicit(first.value_source(base))
        })
    };
    let in_file = |arg: &Arg| {
        let key = arg.get_id().as_str();
        (is_setting(arg) && !is_said_otherwise(key)).then(|| values.get(key))
    };
    let with_default = |arg: Arg| match in_file(&arg) {
        Some(Some(value)) => arg.required(false).default_value(value.clone()),
        _ => arg,
    };
    let command = changed(command, &with_default);
    let matches = matches(&command, words)?;
    Ok(Settings { command, matches, file: Some((path, values)) })
}

/// What the words and the environment say. An empty variable counts as not set: files of variables, as of
/// containers, cannot leave a line out.
fn matches(command: &Command, words: &[OsString]) -> Result<ArgMatches> {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let without_empty = |arg: Arg| {
        if arg.get_env().is_some_and(is_empty) { arg.env(None::<&str>) } else { arg }
    };
    let read = changed(command.clone(), &without_empty).try_get_matches_from(words);
    let read = match read {
        // Help names all variables, empty or not.
        Err(error) if !error.use_stderr() => command.clone().try_get_matches_from(words),
        read => read,
    };
    Ok(read.map_err(|error| discreet(with_variables(command, error)))?)
}

/// The error where something is missing with the variables that may say it. Without the usage, which has only
/// what was said by flags.
fn with_variables(command: &Command, mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
    {
        let missing = missing.iter().map(|said| match variable(command, said) {
            Some(variable) => format!("{said} ({variable})"),
            None => said.clone(),
        });
        let missing = ContextValue::Strings(missing.collect());
        error.insert(ContextKind::InvalidArg, missing);
        error.remove(ContextKind::Usage);
    }
    error
}

/// The variable of a flag such as `--tls-key <FILE>`.
fn variable(command: &Command, said: &str) -> Option<String> {
    let long = said.strip_prefix("--")?.split(' ').next();
    let arg = command.get_arguments().find(|arg| arg.get_long() == long);
    let here = arg.and_then(Arg::get_env).map(|name| name.to_string_lossy().into_owned());
    here.or_else(|| command.get_subcommands().find_map(|inner| variable(inner, said)))
}

fn is_explicit(source: Option<ValueSource>) -> bool {
    source.is_some_and(|source| source != ValueSource::DefaultValue)
}

pub(super) fn command_with_every_setting(command: &Command) -> Result<&Command> {
    command.find_subcommand(EVERY_SETTING).context("there is no command that has every setting")
}

/// Whether an argument is a setting, which has a variable and may be in the file.
pub(super) fn is_setting(arg: &Arg) -> bool {
    arg.get_env().is_some()
}

pub(super) fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| deepest(inner))
}

/// An error without what may have a password in it: a URL, in its place or in another's.
fn discreet(mut error: clap::Error) -> clap::Error {
    let text = |value: &ContextValue| match value {
        ContextValue::String(text) => text.clone(),
        _ => String::new(),
    };
    let is_of_url =
        error.get(ContextKind::InvalidArg).is_some_and(|of| text(of).ends_with("<URL>"));
    let is_hidden = |(kind, value): (ContextKind, &ContextValue)| {
        (may_be_url(&text(value)) || is_of_url && kind == ContextKind::InvalidValue).then_some(kind)
    };
    for kind in error.context().filter_map(is_hidden).collect::<Vec<_>>() {
        error.insert(kind, ContextValue::String("(not shown)".to_owned()));
    }
    error
}

/// Why a text is not TOML, without the line that the error itself shows.
fn not_toml(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let at = error.span().map_or(text.len(), |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    anyhow!("line {line}, column {column}: {}", error.message())
}

fn changed(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    command.mut_args(change).mut_subcommands(|inner| changed(inner, change))
}

/// The file's values as a flag has them, each tried on the command that has every setting.
fn values(path: &Path, command: &Command) -> Result<BTreeMap<String, String>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let table = text.parse::<toml::Table>().map_err(|error| not_toml(&text, &error));
    let table = table.with_context(|| format!("{name} is not TOML"))?;
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
            // Other characters must be quoted, and then may be anything.
            let is_bare = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
            let key = if key.chars().all(is_bare) { &key } else { "of this name" };
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
        let text = discreet(error).to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        bail!("{name}: {first}");
    }
    Ok(values)
}
