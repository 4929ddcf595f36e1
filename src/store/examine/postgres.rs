//! The trials of PostgreSQL, and of whatever speaks its protocol.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orgd_migrations::known_steps;
use sea_orm::{
    DbBackend, DbErr, RuntimeErr,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row, SqlSafeStr,
        postgres::PgConnectOptions,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::finding::{Findings, Found, place, refused, words};
use crate::store::{
    Store, StoreOptions, clock,
    options::STATEMENT_TIMEOUT_MAX,
    retry::{ANSWER_TIME, RETRIES_MAX, retried},
    session::{PLANNER, SessionSettings},
    tls,
    url::{self, reachable},
};

/// How long one trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement whose limit is [`STATEMENT_TIMEOUT_MAX`] is waited for: more than a slow way to the database takes.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a statement that is kept prepared is done, with transactions between.
const ROUNDS: usize = 5;

/// Two connections, set up as those of calls and of workers are.
struct Sessions {
    calls: PgConnection,
    batches: PgConnection,
    of_calls: SessionSettings,
    of_batches: SessionSettings,
}

/// A trial fails with what the database says, or with what is wrong with what it says.
enum Failure {
    Database(sqlx::Error),
    Said(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

type Tried = Result<String, Failure>;

pub(super) async fn examine(url: &SecretString, findings: &mut Findings) {
    let mut sessions = match within(Sessions::open(url), url).await {
        Ok(sessions) => sessions,
        Err(error) => {
            findings.note("server", Err(error));
            return;
        }
    };
    findings.note("server", Ok(place(url)));
    findings.note("version", within(sessions.version(), url).await);
    findings.note("encoding", within(sessions.encoding(), url).await);
    findings.note("isolation", within(sessions.isolation(), url).await);
    let is_own = findings.note("limits", within(sessions.limits(), url).await);
    findings.note("planner", within(sessions.planner(), url).await);
    // What follows would tell nothing about sessions that others have too.
    if !is_own || !findings.note("sessions", within(sessions.prepared(), url).await) {
        return;
    }
    if !findings.note("schema", schema(url).await) {
        return;
    }
    findings.note("statements", within(sessions.statements(), url).await);
    findings.note("revocation", within(sessions.revocation(), url).await);
    findings.note("lost transactions", within(sessions.lost(), url).await);
    findings.note("clock", within(sessions.clock(), url).await);
    for connection in [sessions.calls, sessions.batches] {
        // What is closed has nothing to lose.
        let _ = timeout(TRIAL_TIMEOUT, connection.close()).await;
    }
}

/// Does a trial, and puts its failure into words.
async fn within<T>(
    trial: impl Future<Output = Result<T, Failure>>,
    url: &SecretString,
) -> Result<T, String> {
    match timeout(TRIAL_TIMEOUT, trial).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Failure::Said(said))) => Err(said),
        Ok(Err(Failure::Database(error))) => Err(words(query_error(error), url).await),
        Err(_) => Err(format!("there was no answer within {} s", TRIAL_TIMEOUT.as_secs())),
    }
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

async fn schema(url: &SecretString) -> Found {
    let store = Store::connect(url, StoreOptions::default()).await;
    let store = store.map_err(|error| error.to_string())?;
    let found = store.examine_schema().await;
    // Nothing waits in its queues.
    let _ = store.close().await;
    found
}

/// The first value of what a statement answers.
async fn value(connection: &mut PgConnection, text: &'static str) -> Result<String, sqlx::Error> {
    let rows = sqlx::raw_sql(text).fetch_all(connection).await?;
    rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}

async fn execute(connection: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop)
}

/// A write that changes nothing, of a row that nobody else waits for.
fn idle_write() -> String {
    let step = known_steps().into_iter().next().unwrap_or_default();
    format!("UPDATE seaql_migrations SET applied_at = applied_at WHERE version = '{step}'")
}

impl Sessions {
    async fn open(url: &SecretString) -> Result<Self, Failure> {
        let checked = url::check(url).and_then(|()| tls::check_cas(url));
        checked.map_err(|error| Failure::Said(words_of(&error)))?;
        let postgres: PgConnectOptions = url.expose_secret().parse()?;
        // The trials wait on purpose, which would be warned of.
        let postgres = reachable(postgres).disable_statement_logging();
        let (calls, batches) = (postgres.connect().await?, postgres.connect().await?);
        let options = StoreOptions::default();
        let of_calls = SessionSettings::of_calls(&options);
        let of_batches = SessionSettings::of_batches(&options);
        Ok(Self { calls, batches, of_calls, of_batches })
    }

    async fn version(&mut self) -> Tried {
        Ok(value(&mut self.calls, "SELECT version()").await?)
    }

    async fn encoding(&mut self) -> Tried {
        let encoding = value(&mut self.calls, "SELECT current_setting('server_encoding')").await?;
        if encoding == "UTF8" {
            return Ok(encoding);
        }
        Err(Failure::Said(format!("it is {encoding}, and must be UTF8 to keep every text")))
    }

    async fn isolation(&mut self) -> Tried {
        let ask = "SELECT current_setting('transaction_isolation')";
        Ok(format!("{}; any will do", value(&mut self.calls, ask).await?))
    }

    /// Sets both up, and reads back what holds: of the first after that of the second.
    async fn limits(&mut self) -> Tried {
        self.of_calls.set(&mut self.calls).await?;
        self.of_batches.set(&mut self.batches).await?;
        self.assure_own().await?;
        let ask = "SELECT 'statement_timeout ' || current_setting('statement_timeout') || \
            ', lock_timeout ' || current_setting('lock_timeout')";
        let [calls, batches] =
            [value(&mut self.calls, ask).await?, value(&mut self.batches, ask).await?];
        Ok(format!("{calls}; of workers: {batches}"))
    }

    async fn assure_own(&mut self) -> Result<(), Failure> {
        let calls = self.of_calls.unfit(&mut self.calls).await?;
        let unfit = calls.or(self.of_batches.unfit(&mut self.batches).await?);
        unfit.map_or(Ok(()), |reason| Err(Failure::Said(reason)))
    }

    /// Settings that only make a service faster.
    async fn planner(&mut self) -> Tried {
        let mut said = Vec::new();
        for (name, value) in PLANNER {
            let ask = sqlx::query_scalar::<_, Option<String>>("SELECT current_setting($1, true)");
            let held = ask.bind(name).fetch_one(&mut self.batches).await.unwrap_or_default();
            said.push(match held {
                Some(held) if held == value => format!("{name} {held}"),
                _ => format!("{name} cannot be set, and batches are slower"),
            });
        }
        Ok(said.join(", "))
    }

    /// Whether each connection has a session of its own: what it has prepared and set survives transactions of its own
    /// and of another.
    async fn prepared(&mut self) -> Tried {
        let lost = |error: sqlx::Error| {
            Failure::Said(format!(
                "a prepared statement does not outlive a transaction ({error}): what stands before the database gives \
                 one session to several connections (transaction pooling); use session pooling, or none"
            ))
        };
        for _ in 0..ROUNDS {
            for (connection, text) in [
                (&mut self.calls, "SELECT $1::bigint AS of_calls"),
                (&mut self.batches, "SELECT $1::bigint AS of_batches"),
            ] {
                for around in ["", "BEGIN", "COMMIT"] {
                    execute(connection, around).await.map_err(lost)?;
                    let kept = sqlx::query_scalar::<_, i64>(text).bind(1_i64);
                    kept.fetch_one(&mut *connection).await.map_err(lost)?;
                }
            }
        }
        self.assure_own().await?;
        Ok("each connection has its own; prepared statements outlive transactions".to_owned())
    }

    async fn statements(&mut self) -> Tried {
        let texts = Store::statement_texts(DbBackend::Postgres);
        for text in &texts {
            let prepared = self.batches.prepare(AssertSqlSafe(text.as_str()).into_sql_str()).await;
            match prepared {
                Err(error @ sqlx::Error::Database(_)) => {
                    return Err(Failure::Said(refused(text, words_of(&query_error(error)))));
                }
                prepared => drop(prepared?),
            }
        }
        Ok(format!("{} of {} are prepared", texts.len(), texts.len()))
    }

    /// Whether a write that began before a revocation is over when that is answered.
    async fn revocation(&mut self) -> Tried {
        let answered = STATEMENT_TIMEOUT_MAX + ANSWER_TIME;
        let mut waited = self.waiting_write().await?;
        if waited.is_some_and(|waited| waited > answered) {
            // A busy machine may end one late. A limit that is too long ends both late.
            waited = self.waiting_write().await?;
        }
        self.of_calls.set(&mut self.calls).await?;
        let Some(waited) = waited else {
            return Ok("a write did not wait for another".to_owned());
        };
        let (waited, answered_ms) = (waited.as_millis(), answered.as_millis());
        if waited > answered_ms {
            return Err(Failure::Said(format!(
                "a write that waited was not ended in time, but after {waited} ms or more: it may be stored after the \
                 revocation of its credential is answered, which is after {answered_ms} ms"
            )));
        }
        Ok(format!(
            "a write that waited was ended after {waited} ms; a revocation is answered after {answered_ms} ms"
        ))
    }

    /// How long a write waits for another until its limit ends it, without the way to the database; at most
    /// [`LIMIT_TIMEOUT`]. None: it did not wait.
    async fn waiting_write(&mut self) -> Result<Option<Duration>, Failure> {
        let write = idle_write();
        execute(&mut self.batches, "BEGIN").await?;
        execute(&mut self.batches, &write).await?;
        let begin = Instant::now();
        execute(&mut self.calls, "SELECT set_config('lock_timeout', '0', false)").await?;
        let way = begin.elapsed();
        let begin = Instant::now();
        let waited = timeout(LIMIT_TIMEOUT, execute(&mut self.calls, &write)).await;
        let took = begin.elapsed().saturating_sub(way);
        execute(&mut self.batches, "ROLLBACK").await?;
        match waited {
            Ok(Ok(())) => Ok(None),
            Ok(Err(sqlx::Error::Database(_))) | Err(_) => Ok(Some(took)),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// A transaction that loses to another is done again, and then succeeds.
    async fn lost(&mut self) -> Tried {
        let write = idle_write();
        let tries = AtomicUsize::new(0);
        let sessions = Mutex::new((&mut self.calls, &mut self.batches));
        let transaction = || async {
            let (calls, batches) = &mut *sessions.lock().await;
            let is_first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            let done = async {
                execute(calls, "BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
                execute(calls, "SELECT version FROM seaql_migrations").await?;
                if is_first {
                    execute(batches, &write).await?;
                }
                execute(calls, &write).await
            };
            let done = done.await;
            execute(calls, "ROLLBACK").await.map_err(query_error)?;
            done.map_err(query_error)
        };
        let done = retried(TRIAL_TIMEOUT, RETRIES_MAX, transaction).await;
        done.map_err(|error| {
            Failure::Said(format!(
                "a transaction that lost to another is not retried: {}",
                words_of(&error)
            ))
        })?;
        Ok(match tries.into_inner() {
            1 => "a transaction did not lose to another".to_owned(),
            tries => format!("a transaction that lost to another was done at try {tries}"),
        })
    }

    async fn clock(&mut self) -> Tried {
        let ask = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint";
        let before = clock::now();
        let theirs: i64 = sqlx::query_scalar(ask).fetch_one(&mut self.calls).await?;
        let after = clock::now();
        let between = before.unix_timestamp_nanos().midpoint(after.unix_timestamp_nanos());
        let ahead = i128::from(theirs) - between / 1_000_000;
        let direction = if ahead < 0 { "behind" } else { "ahead of" };
        let accuracy = (after - before).whole_milliseconds() / 2 + 1;
        Ok(format!(
            "the database's is {} ms {direction} this machine's, give or take {accuracy} ms",
            ahead.unsigned_abs()
        ))
    }
}

/// What an error says, without the place of the database.
fn words_of(error: &DbErr) -> String {
    crate::store::Trouble::of(error).to_string()
}
