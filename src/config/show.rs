//! The settings as text: what is in force and why (`orgd config`), and the page that lists them all.

use std::{any::TypeId, fmt::Write};

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, parser::ValueSource};
use secrecy::SecretString;

use super::file::{Settings, command_with_every_setting, deepest, is_setting};

/// Every setting, its value and its source, as lines of a settings file without secrets.
pub fn effective(settings: &Settings) -> Result<String> {
    let matches = deepest(&settings.matches);
    let mut text = String::from(
        "# The settings in force. The lines can stand in the file that --config names.\n",
    );
    let mut heading = String::new();
    for arg in settings_of(&settings.command)? {
        let next = arg.get_help_heading().unwrap_or_default();
        if next != heading {
            next.clone_into(&mut heading);
            let _ = writeln!(text, "\n# {heading}");
        }
        let (key, source) = (arg.get_id(), source(settings, matches, &arg));
        let _ = match value(matches, &arg) {
            _ if *key == *"config" => writeln!(text, "# config: {source}"),
            // A default is no secret.
            Some(_) if is_secret(&arg) && source != "default" => {
                writeln!(text, "# {key} = (not shown)  # {source}")
            }
            Some(value) => writeln!(text, "{key} = {value}  # {source}"),
            None => writeln!(text, "# {key} is not set"),
        };
    }
    Ok(text)
}

pub fn page(command: &Command) -> Result<String> {
    let mut text = String::from(PAGE_HEAD);
    let mut heading = String::new();
    for arg in settings_of(command)? {
        let next = arg.get_help_heading().unwrap_or_default();
        if next != heading {
            next.clone_into(&mut heading);
            let _ = write!(text, "\n## {heading}\n\n{TABLE_HEAD}");
        }
        // A secret's flag is hidden: other users of the machine would see it.
        let flag = arg.get_long().filter(|_| !arg.is_hide_set());
        let flag = flag.map_or("–".to_owned(), |flag| format!("`--{flag}`"));
        let variable = arg.get_env().unwrap_or_default().to_string_lossy();
        let default: Vec<_> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match default.first() {
            Some(value) if !value.is_empty() => format!("`{value}`"),
            _ => "–".to_owned(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace('|', "\\|");
        let _ =
            writeln!(text, "| `{}` | {flag} | `{variable}` | {default} | {help} |", arg.get_id());
    }
    Ok(text)
}

const PAGE_HEAD: &str = "# Settings

Generated from `src/config` by `orgd config --page`; a test holds the page to it.

A setting is a flag, a variable and a key of the settings file. A flag comes before a variable, a
variable before the file, and the file before the default; the service runs with none set. An empty variable
counts as not set, and one that begins with `ORGD_` and is no setting is warned of. The file is flat TOML and named
by `--config` or `ORGD_CONFIG`. A key that is no setting is an error.

```toml
database_url = \"postgres://orgd:…@db/orgd\"
request_deadline = \"3s\"
connections_max = 1000
```

`orgd config` prints what is in force and where each value came from; secrets are not printed. Each
command takes the settings that it uses and ignores the file's others.

In `database_url`, percent-encode the special characters of the user name and the password (`/` is `%2F`,
`?` is `%3F`, `#` is `%23`, `@` is `%40`, `%` is `%25`). A URL that leaves in doubt what is password, and a
parameter that has no effect, are refused; nothing of the URL is repeated. The parameters of PostgreSQL that have one are
`application_name`, `dbname`, `host`, `hostaddr`, `options`, `options[NAME]`, `password`, `port`, `sslcert`, `sslkey`,
`sslmode` (`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`), `sslrootcert`,
`statement-cache-capacity` and `user`; `sslmode=` is also written `ssl-mode=`, and the files `ssl-ca=`, `ssl-root-cert=`,
`ssl-cert=` and `ssl-key=`. What the URL does not say comes from libpq's variables, where they are set: `PGHOST`, `PGHOSTADDR`, `PGPORT`,
`PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGPASSFILE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGAPPNAME` and `PGOPTIONS`.
Other URLs are `http://HOST:PORT` or
`https://HOST:PORT`, without user, password, path or query, none of which would be sent.
";

const TABLE_HEAD: &str = "| key | flag | variable | default | what |\n|---|---|---|---|---|\n";

fn settings_of(command: &Command) -> Result<Vec<Arg>> {
    let mut command = command.clone();
    // Hands the arguments that all commands have to each of them.
    command.build();
    let all = command_with_every_setting(&command)?;
    Ok(all.get_arguments().filter(|arg| is_setting(arg)).cloned().collect())
}

fn is_secret(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<SecretString>()
}

fn value(matches: &ArgMatches, arg: &Arg) -> Option<String> {
    let raw = matches.get_raw(arg.get_id().as_str())?.next()?.to_string_lossy().into_owned();
    let is_bare = raw.parse::<i64>().is_ok() || raw.parse::<bool>().is_ok();
    Some(if is_bare { raw } else { toml::Value::String(raw).to_string() })
}

fn source(settings: &Settings, matches: &ArgMatches, arg: &Arg) -> String {
    let key = arg.get_id().as_str();
    match (matches.value_source(key), &settings.file) {
        (Some(ValueSource::CommandLine), _) => "command line".to_owned(),
        (Some(ValueSource::EnvVariable), _) => {
            format!("variable {}", arg.get_env().unwrap_or_default().to_string_lossy())
        }
        (Some(_), Some((path, values))) if values.contains_key(key) => {
            format!("file {}", path.display())
        }
        (Some(_), _) => "default".to_owned(),
        (None, _) => "not set".to_owned(),
    }
}
