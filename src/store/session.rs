//! What a session of PostgreSQL is set to: after connecting, and read back. Hosts and poolers drop or refuse what a
//! connection brings along at its start.

use std::time::Duration;

use sea_orm::sqlx::{self, AssertSqlSafe, PgConnection, Row};

use super::options::{STATEMENT_TIMEOUT_MAX, StoreOptions};

/// A batch that waits longer for a locked row is rolled back, and each of its rows is tried alone.
const BATCH_LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// What a planner of batches is set to, where the server has such settings.
///
/// Every statement finds its rows by key, also where the statistics of a table that was empty yesterday suggest a
/// scan. So one generic plan serves all batches; planning each would cost as much as a small batch.
pub(super) const PLANNER: [(&str, &str); 3] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    // A scan that cannot be avoided has such a high estimated cost with `enable_seqscan = off` that it would be
    // compiled each time, which takes a second.
    ("jit", "off"),
];

/// The settings of a pool's sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionSettings {
    statement_timeout: Duration,
    lock_timeout: Duration,
    planner: &'static [(&'static str, &'static str)],
}

impl SessionSettings {
    /// Of the sessions on which each call has a statement of its own.
    pub(super) fn of_calls(options: &StoreOptions) -> Self {
        let StoreOptions { statement_timeout, lock_timeout, .. } = *options;
        Self { statement_timeout, lock_timeout, planner: &[] }
    }

    /// Of the workers' sessions. The limits for locks differ from that of calls, always: by it a session is known that
    /// both have.
    pub(super) fn of_batches(options: &StoreOptions) -> Self {
        let is_taken = options.lock_timeout == BATCH_LOCK_TIMEOUT;
        let lock_timeout =
            BATCH_LOCK_TIMEOUT.saturating_sub(Duration::from_millis(is_taken.into()));
        Self { lock_timeout, planner: &PLANNER, ..Self::of_calls(options) }
    }

    /// Sets them, in one round trip. A server that refuses one of them is told each alone: [`Self::unfit`] finds
    /// what does not hold and must.
    pub(super) async fn set(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let limit = |limit: Duration| format!("{}ms", limit.as_millis());
        let limits = [
            ("statement_timeout", limit(self.statement_timeout)),
            ("lock_timeout", limit(self.lock_timeout)),
        ];
        let planner = self.planner.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let calls: Vec<_> = limits.into_iter().chain(planner).map(call).collect();
        if is_done(connection, &calls.join(", ")).await? {
            return Ok(());
        }
        for call in calls {
            is_done(connection, &call).await?;
        }
        Ok(())
    }

    /// Why a session is of no use, where it is not. One round trip, as a ping would be, and nothing is kept
    /// prepared.
    pub(super) async fn unfit(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<String>, sqlx::Error> {
        let state = "SELECT current_setting('transaction_read_only') AS read_only, \
            current_setting('server_encoding') AS encoding, \
            current_setting('statement_timeout') AS statement_timeout, \
            current_setting('lock_timeout') AS lock_timeout";
        let rows = sqlx::raw_sql(state).fetch_all(connection).await?;
        let row = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        let text = |name: &str| row.try_get::<String, _>(name);
        if text("read_only")? == "on" {
            return Ok(Some(
                "the server takes no writes: it is a standby, or default_transaction_read_only is on"
                    .to_owned(),
            ));
        }
        if text("encoding")? != "UTF8" {
            return Ok(Some(
                "the encoding of the database is not UTF8: create one with \
                 CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move the data there"
                    .to_owned(),
            ));
        }
        Ok(self.without_limits(&text("statement_timeout")?, &text("lock_timeout")?))
    }

    /// Why these limits will not do. A smaller one for statements does no harm; the one for locks tells whose session
    /// it is.
    fn without_limits(&self, statement_timeout: &str, lock_timeout: &str) -> Option<String> {
        const ADVICE: &str = "orgd has set it on this connection, so what stands before the database loses settings \
            or gives one session to several connections (transaction pooling); use session pooling, or none";
        let limit_max = STATEMENT_TIMEOUT_MAX.as_millis();
        if !milliseconds(statement_timeout).is_some_and(|limit| (1..=limit_max).contains(&limit)) {
            return Some(format!(
                "statement_timeout is {statement_timeout} (0: none), and must be 1 to {limit_max} ms: a revocation \
                 waits until every statement that began before it is over. {ADVICE}"
            ));
        }
        let own = self.lock_timeout.as_millis();
        (milliseconds(lock_timeout) != Some(own)).then(|| {
            format!("lock_timeout is {lock_timeout} (0: none), and must be {own} ms: {ADVICE}")
        })
    }
}

fn call((name, value): (&str, String)) -> String {
    format!("set_config('{name}', '{value}', false)")
}

/// Whether the server did not refuse it.
async fn is_done(connection: &mut PgConnection, calls: &str) -> Result<bool, sqlx::Error> {
    let set = sqlx::raw_sql(AssertSqlSafe(format!("SELECT {calls}")));
    match set.execute(connection).await {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A limit as servers write it: without a unit it is in milliseconds.
fn milliseconds(text: &str) -> Option<u128> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_servers_write_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("250ms", Some(250)),
            ("1s", Some(1000)),
            ("2min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("1 s", Some(1000)),
            ("", None),
            ("s", None),
            ("1us", None),
            ("-1", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn calls_and_batches_never_have_the_same_limit_for_locks() {
        for lock_timeout in [1, 249, 250, 251, 1000].map(Duration::from_millis) {
            let options = StoreOptions { lock_timeout, ..StoreOptions::default() };
            let [calls, batches] =
                [SessionSettings::of_calls(&options), SessionSettings::of_batches(&options)];
            assert_ne!(calls.lock_timeout, batches.lock_timeout);
            let said = format!("{}ms", batches.lock_timeout.as_millis());
            assert_eq!(batches.without_limits("1s", &said), None);
            assert!(calls.without_limits("1s", &said).unwrap().contains("transaction pooling"));
        }
    }
}
