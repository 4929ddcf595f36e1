//! The database's URL, which is read here before anyone else sees it.
//!
//! sqlx logs parameters that it does not know with their values, and SeaORM repeats a URL that it
//! cannot read. An unescaped `/`, `?`, `#` or `@` in a password makes a part of it such a text. So
//! only a URL that is plain goes on, and what is said of another repeats nothing of it.

use std::fmt;

use sea_orm::{
    DbErr,
    sqlx::{
        postgres::{PgConnectOptions, PgSslMode},
        sqlite::SqliteConnectOptions,
    },
};
use secrecy::{ExposeSecret, SecretString};
use url::{Url, form_urlencoded};

use super::tls;

const FORMS: &str =
    "the URL is neither sqlite://FILE?mode=rwc nor postgres://USER:PASSWORD@HOST/NAME";
const ESCAPE: &str = "the URL cannot be read; percent-encode the special characters of the user name \
                      and the password: `/` is %2F, `?` is %3F, `#` is %23, `@` is %40, `%` is %25";
const SEVERAL: &str = "the URL or PGHOST names several hosts, or how one of several is chosen; name one host, and put before \
                       the servers what leads to the one that takes writes: HAProxy, or an address that moves with it";
const SSL_MODES: &str =
    "sslmode of the URL must be disable, allow, prefer, require, verify-ca or verify-full";
const IN_MEMORY: &str = "a database in memory cannot be shared by connections; name a file";

/// The parameters of a PostgreSQL URL that sqlx knows, beside `options[NAME]`.
const KNOWN: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Parameters of libpq that people bring along. Only these are named when they are refused: any other
/// word may be a part of a password.
const OF_LIBPQ: [&str; 14] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "passfile",
    "service",
    "sslcompression",
    "tcp_user_timeout",
];

/// Parameters of libpq by which one of several hosts is chosen.
const OF_SEVERAL: [&str; 2] = ["load_balance_hosts", "target_session_attrs"];

/// Which database a URL names: what of it anyone may see, so neither user nor password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub kind: &'static str,
    pub file: Option<String>,
    /// Whether SQLite makes its file where there is none (`mode=rwc`).
    pub(super) creates: bool,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// None: the one that is named as its user.
    pub database: Option<String>,
    /// The user, for the statement that grants it a right and for no other words.
    pub(super) role: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind)?;
        if let Some(file) = &self.file {
            write!(formatter, " in {file}")?;
        }
        if let Some(host) = &self.host {
            write!(formatter, " at {host}")?;
        }
        if let Some(port) = self.port {
            write!(formatter, ":{port}")?;
        }
        match &self.database {
            Some(database) => write!(formatter, ", database {database}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// None of a URL that is not plain, which may have a secret anywhere.
    #[must_use]
    pub fn of(url: &SecretString) -> Option<Self> {
        check(url).ok()?;
        let text = url.expose_secret();
        if text.starts_with("sqlite:") {
            let sqlite = text.parse::<SqliteConnectOptions>().ok()?;
            let file = Some(sqlite.get_filename().display().to_string());
            let query = text.split_once('?').map(|(_, query)| query).unwrap_or_default();
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let creates = pairs.any(|(name, value)| name == "mode" && value == "rwc");
            return Some(Self { kind: "SQLite", file, creates, ..Self::default() });
        }
        let postgres = text.parse::<PgConnectOptions>().ok()?;
        let socket = postgres.get_socket().map(|folder| folder.display().to_string());
        Some(Self {
            kind: "PostgreSQL",
            file: None,
            creates: false,
            host: socket.or_else(|| Some(postgres.get_host().to_owned())),
            port: Some(postgres.get_port()),
            database: postgres.get_database().map(ToOwned::to_owned),
            role: Some(postgres.get_username().to_owned()),
        })
    }
}

/// What a connection needs to be made, anywhere.
///
/// Of an IPv6 address the brackets are removed that it has in a URL: with them sqlx takes it for a host name.
/// Poolers refuse start-up parameters that they do not know, so sqlx's digits of floats, of which none is stored, are
/// left out.
pub(super) fn reachable(options: PgConnectOptions) -> PgConnectOptions {
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("orgd") };
    let options = tls::as_with_libpq(options.extra_float_digits(None));
    let host = options.get_host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match address.map(str::to_owned) {
        Some(address) => options.host(&address),
        None => options,
    }
}

/// Refuses a URL that is not plain, in words that have nothing of it.
pub(super) fn check(url: &SecretString) -> Result<(), DbErr> {
    let text = url.expose_secret();
    let refused = match text.split_once(':') {
        Some(("sqlite", _)) => check_sqlite(text),
        Some(("postgres" | "postgresql", rest)) => check_postgres(text, rest),
        _ => Err(FORMS.to_owned()),
    };
    refused.map_err(DbErr::Custom)
}

fn check_sqlite(text: &str) -> Result<(), String> {
    if text.parse::<SqliteConnectOptions>().is_err() {
        return Err(FORMS.to_owned());
    }
    if text.contains(":memory:") || text.contains("mode=memory") {
        return Err(IN_MEMORY.to_owned());
    }
    Ok(())
}

fn check_postgres(text: &str, rest: &str) -> Result<(), String> {
    let rest = rest.strip_prefix("//").ok_or(FORMS)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    // What stands before the last `@` is meant as user name and password.
    let is_plain = !after.contains(['@', '#']) && authority.matches('@').count() <= 1;
    // `Url` leaves out what is not visible.
    if !is_plain || rest.trim_end().contains(['\t', '\r', '\n']) {
        return Err(ESCAPE.to_owned());
    }
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    if hosts.contains(',') {
        return Err(SEVERAL.to_owned());
    }
    let url = Url::parse(text).map_err(|_| ESCAPE)?;
    for (name, value) in url.query_pairs() {
        let is_place = matches!(&*name, "host" | "hostaddr" | "port");
        if is_place && value.contains(',') || OF_SEVERAL.contains(&&*name) {
            return Err(SEVERAL.to_owned());
        }
        let is_mode = matches!(&*name, "sslmode" | "ssl-mode");
        if is_mode && value.parse::<PgSslMode>().is_err() {
            return Err(SSL_MODES.to_owned());
        }
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if is_option || KNOWN.contains(&&*name) {
            continue;
        }
        let name = OF_LIBPQ.iter().find(|known| **known == name);
        let named = name.map_or_else(String::new, |name| format!(", {name}"));
        return Err(format!(
            "the URL has a parameter that has no effect here{named}; those that have are {} and \
             options[NAME]",
            KNOWN.join(", ")
        ));
    }
    // Values of parameters, and bytes that are no UTF-8.
    let postgres = text.parse::<PgConnectOptions>().map_err(|_| ESCAPE)?;
    // From libpq's variables, where the URL names none.
    if postgres.get_host().contains(',') {
        return Err(SEVERAL.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_settings_names_every_parameter() {
        let page = include_str!("../../docs/CONFIG.md");
        let (_, listed) = page.split_once("The parameters of PostgreSQL that have one").unwrap();
        let listed = listed.split_once("libpq").unwrap().0;
        for name in KNOWN {
            let is_named = [format!("`{name}`"), format!("`{name}=`")];
            assert!(is_named.iter().any(|name| listed.contains(name)), "{name}");
        }
    }

    #[test]
    fn of_a_url_anyone_may_see_the_place_alone() {
        let shown = |url: &str| {
            Place::of(&url.into()).map(|Place { kind, file, host, port, database, .. }| {
                let texts = [Some(kind.to_owned()), file, host, port.map(|port| port.to_string())];
                texts.into_iter().chain([database]).flatten().collect::<Vec<_>>().join(" ")
            })
        };
        for (url, place) in [
            ("sqlite://folder/orgd.db?mode=rwc", Some("SQLite folder/orgd.db")),
            ("postgres://odd:pw@db:6432/orgd?sslmode=disable", Some("PostgreSQL db 6432 orgd")),
            ("postgres://odd:pw@db:5432", Some("PostgreSQL db 5432")),
            (
                "postgres:///orgd?host=/run/pg&port=5433&user=odd",
                Some("PostgreSQL /run/pg 5433 orgd"),
            ),
            ("postgres://odd:2024/StormPetrel@localhost/orgd", None),
        ] {
            assert_eq!(shown(url).as_deref(), place, "{url}");
        }
    }

    #[test]
    fn only_a_plain_url_goes_on_and_nothing_is_repeated_of_another() {
        for (url, sentence) in [
            ("sqlite://orgd.db?mode=rwc", None),
            ("sqlite:orgd.db", None),
            ("sqlite://orgd.db?mode=StormPetrel", Some(FORMS)),
            ("sqlite://:memory:", Some(IN_MEMORY)),
            ("postgres://odd@localhost", None),
            ("postgresql://odd:p%2Fw@localhost:5432/orgd?sslmode=disable", None),
            ("postgres://odd:!$&'()*+,;=:~-_.@localhost/orgd?options[search_path]=x", None),
            ("postgres://odd:pässword@[::1]:5432/orgd", None),
            ("postgres://localhost/orgd?user=odd&password=x\n", None),
            ("postgres://odd:2024?StormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:2024/StormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:2024#StormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:2024@StormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:2024\tStormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:2024%FFStormPetrel@localhost/orgd", Some(ESCAPE)),
            ("postgres://odd:StormPetrel@localhost:x/orgd", Some(ESCAPE)),
            ("postgres://odd:StormPetrel@[::1/orgd", Some(ESCAPE)),
            ("postgres://localhost/orgd?sslmode=StormPetrel", Some(SSL_MODES)),
            ("postgres://localhost/orgd?sslmode=verify_full", Some(SSL_MODES)),
            ("postgres://localhost/orgd?ssl-mode=verify-full", None),
            ("postgres:odd:StormPetrel@localhost/orgd", Some(FORMS)),
            ("odd:StormPetrel@localhost/orgd", Some(FORMS)),
            ("mysql://odd:StormPetrel@localhost/orgd", Some(FORMS)),
            ("postgresx://odd:StormPetrel@localhost/orgd", Some(FORMS)),
            ("", Some(FORMS)),
            ("postgres://localhost/orgd?password=2024&StormPetrel=1", Some("effect here; those")),
            ("postgres://odd:2024@a:5432,b:5432/orgd", Some(SEVERAL)),
            ("postgres://odd:2024@a,b/orgd?target_session_attrs=read-write", Some(SEVERAL)),
            ("postgres://odd:2024@[::1]:5432,[::2]:5432/orgd", Some(SEVERAL)),
            ("postgres:///orgd?host=a,StormPetrel&user=odd", Some(SEVERAL)),
            ("postgres://a/orgd?target_session_attrs=StormPetrel", Some(SEVERAL)),
            ("postgres://odd:p,w@localhost/orgd", None),
            ("postgres://localhost/orgd?connect_timeout=5", Some("effect here, connect_timeout;")),
        ] {
            let checked = check(&url.into()).map_err(|error| error.to_string());
            match sentence {
                None => assert_eq!(checked, Ok(()), "{url:?}"),
                Some(sentence) => {
                    let refused = checked.expect_err(url);
                    assert!(refused.contains(sentence), "{url:?}: {refused}");
                    for part in ["Storm", "2024"] {
                        assert!(!refused.contains(part), "{url:?}: {refused}");
                    }
                }
            }
        }
    }
}
