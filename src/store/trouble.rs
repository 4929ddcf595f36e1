//! Why the database does not do what it is asked, in words for an operator: which database it is, and
//! the first cause, once. Never a password.

use std::{fmt, fs, io, path::Path, time::Duration};

use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{
        self, ConnectOptions,
        postgres::{PgConnectOptions, PgDatabaseError},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::{
    codes::{of_sqlx, sqlite_code},
    tls,
    url::{Place, reachable},
};

/// How long the search for the reason of a silence may take.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(400);

/// What the service needs of its own tables, and of no other.
const TABLES: &str =
    "organizations, organization_changes, organization_ids, credentials, seaql_migrations";
/// Where a password may come from.
const PASSWORDS: &str = "the password is that of the URL, else PGPASSWORD, else of the first line \
    HOST:PORT:DATABASE:USER:PASSWORD that fits in the file of PGPASSFILE or ~/.pgpass (HOST as the URL has it; the \
    file with mode 0600, or it does not count)";
/// A call has no time to look for a reason. Readiness looks for it, and says it once.
const SEARCHED: &str = "if that goes on, \"readiness has changed\" in the log says where and why";
/// Who lacks the right to this one has been granted nothing yet.
const STEPS: &str = "seaql_migrations";

/// Why the database does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    said: String,
    kind: Kind,
    place: Option<Place>,
}

impl std::error::Error for Trouble {}

impl From<DbErr> for Trouble {
    fn from(error: DbErr) -> Self {
        Self::of(&error)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// `said` is the whole sentence, which names what it is of.
    Whole,
    Plain,
    /// There was no answer in time, or no connection, and it is not known why.
    Silence,
    /// SQLite cannot open or write its file.
    File,
    /// The password is wrong, or none was found.
    Password,
    /// The role has no right to this.
    Right(Object),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    Table(String),
    Schema(String),
    Unknown,
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(formatter, "{place}: ")?;
        }
        formatter.write_str(&self.said)?;
        let role = self.place.as_ref().and_then(|place| place.role.as_deref());
        match &self.kind {
            Kind::Right(object) => write!(formatter, "; {}", object.granted(role)),
            Kind::Password => write!(formatter, "; {PASSWORDS}"),
            Kind::Silence if self.place.is_none() => write!(formatter, "; {SEARCHED}"),
            _ => Ok(()),
        }
    }
}

impl Trouble {
    /// What an error says, without what only the database's place can tell.
    pub(super) fn of(error: &DbErr) -> Self {
        if let Some(error) = of_sqlx(error) {
            return Self::of_sqlx(error);
        }
        match error {
            DbErr::Conn(RuntimeErr::Internal(said)) => Self::new(said.clone(), Kind::Plain),
            DbErr::Exec(RuntimeErr::Internal(said))
            | DbErr::Query(RuntimeErr::Internal(said))
            | DbErr::Custom(said)
            | DbErr::Migration(said) => Self::whole(said),
            DbErr::ConnectionAcquire(_) => {
                Self::new("no connection was free in time".to_owned(), Kind::Silence)
            }
            error => Self::whole(error),
        }
    }

    fn of_sqlx(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => {
                Self::new("no connection was free in time".to_owned(), Kind::Silence)
            }
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::silence(),
            sqlx::Error::Io(error) => {
                let said = tls::words(error).unwrap_or_else(|| io_words(error));
                Self::new(said, Kind::Plain)
            }
            sqlx::Error::Tls(error) => {
                Self::new(tls::words_of_refusal(error.as_ref()), Kind::Plain)
            }
            sqlx::Error::Database(error) => {
                let said = error.message().to_owned();
                let kind = match sqlite_code(error.as_ref()) {
                    // READONLY, CANTOPEN.
                    Some(8 | 14) => Kind::File,
                    None => match error.code().as_deref() {
                        Some("42501") => Kind::Right(Object::of(error.try_downcast_ref(), &said)),
                        Some("28P01") => Kind::Password,
                        _ => Kind::Plain,
                    },
                    Some(_) => Kind::Plain,
                };
                Self::new(said, kind)
            }
            error => Self::new(error.to_string(), Kind::Plain),
        }
    }

    /// The error of a database that did not answer.
    pub(super) fn silence() -> Self {
        Self::new("it gave no answer in time".to_owned(), Kind::Silence)
    }

    /// A sentence that needs no more words.
    pub(super) fn whole(said: &(impl fmt::Display + ?Sized)) -> Self {
        Self::new(said.to_string(), Kind::Whole)
    }

    fn new(said: String, kind: Kind) -> Self {
        Self { said, kind, place: None }
    }

    /// The same of the database that `url` names. Where nothing is known but a silence, looks for the reason.
    pub(super) async fn at(error: &DbErr, url: &SecretString) -> Self {
        let Some(place) = Place::of(url) else { return Self::of(error) };
        let postgres = || url.expose_secret().parse::<PgConnectOptions>().ok();
        Self::of(error).found(&place, postgres().map(reachable).as_ref()).await
    }

    /// Adds the place, and looks for the reason of a silence. `postgres` is of no use on SQLite.
    pub(super) async fn found(
        mut self,
        place: &Place,
        postgres: Option<&PgConnectOptions>,
    ) -> Self {
        match (&self.kind, &place.file, postgres) {
            (Kind::Whole, _, _) => return self,
            (Kind::Plain, Some(file), _) if self.said.contains(file) => return self,
            (Kind::File, Some(file), _) => {
                if let Some(said) = file_words(Path::new(file), place.creates) {
                    self.said = said;
                }
            }
            (Kind::Silence, None, Some(postgres)) => {
                if let Some(reason) = reason_of_silence(postgres).await {
                    self = reason;
                }
            }
            _ => {}
        }
        self.place = Some(place.clone());
        self
    }
}

impl Object {
    /// Of which object a refusal speaks. PostgreSQL tells it in the sentence alone, which may be in another
    /// language.
    fn of(error: Option<&PgDatabaseError>, said: &str) -> Self {
        let named = |kind: &str| said.split_once(kind).map(|(_, name)| name.trim().to_owned());
        if let Some(table) = error.and_then(PgDatabaseError::table) {
            return Self::Table(table.to_owned());
        }
        let named = named(" for table ").map(Self::Table);
        let schema =
            || said.split_once(" for schema ").map(|(_, name)| Self::Schema(name.to_owned()));
        named.or_else(schema).unwrap_or(Self::Unknown)
    }

    /// The statement that gives the right, for the tables' owner.
    fn granted(&self, role: Option<&str>) -> String {
        let role = role.map_or_else(|| "the role of the database's URL".to_owned(), identifier);
        let rights = "GRANT SELECT, INSERT, UPDATE ON";
        match self {
            Self::Table(table) if table != STEPS => format!("{rights} {table} TO {role};"),
            Self::Schema(schema) => format!(
                "let the role that owns the tables run `orgd migrate`, then GRANT USAGE ON SCHEMA {schema} TO \
                 {role}; {rights} {TABLES} TO {role}; or, where {role} is to own the tables, GRANT USAGE, CREATE ON \
                 SCHEMA {schema} TO {role};"
            ),
            Self::Table(_) | Self::Unknown => format!("{rights} {TABLES} TO {role};"),
        }
    }
}

/// A name as SQL has it: quoted where it would else be another.
fn identifier(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let is_inner = |letter: char| is_plain(letter) || letter.is_ascii_digit();
    if name.starts_with(is_plain) && name.chars().all(is_inner) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Connects once, as a pool hides behind its own time limit why it cannot.
async fn reason_of_silence(postgres: &PgConnectOptions) -> Option<Trouble> {
    match timeout(SEARCH_TIMEOUT, postgres.connect()).await {
        Ok(Ok(connection)) => {
            drop(connection);
            None
        }
        Ok(Err(error)) => Some(Trouble::of_sqlx(&error)),
        Err(_) => Some(Trouble::silence()),
    }
}

/// What the system says, without its number, as the end of a sentence.
fn io_words(error: &io::Error) -> String {
    let text = error.to_string();
    let Some((said, _)) = text.split_once(" (os error") else { return text };
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Why SQLite cannot open or write a file, where the file system can tell.
fn file_words(file: &Path, creates: bool) -> Option<String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Some(format!("{} is no folder", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(format!("the folder {} does not exist", folder.display()));
        }
        Err(error) => {
            return Some(format!("the folder {}: {}", folder.display(), io_words(&error)));
        }
    }
    if file.is_dir() {
        return Some("it is a folder".to_owned());
    }
    let cannot = |what: &str, error: &io::Error| {
        Some(format!("the file cannot be {what}: {}", io_words(error)))
    };
    match fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && creates => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("there is no such file; end the URL with ?mode=rwc to make it".to_owned());
        }
        Err(error) => return cannot("read", &error),
        Ok(_) => {
            if let Err(error) = fs::OpenOptions::new().append(true).open(file) {
                return cannot("written", &error);
            }
        }
    }
    // The database, or the files that stand beside it.
    let folder = folder.display();
    Some(format!(
        "no file can be made in the folder {folder}; SQLite needs to make some beside the database's"
    ))
}
