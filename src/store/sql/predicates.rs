//! The conditions that several statements share.

use sea_orm::{DbBackend, sea_query::Expr};

use super::pending::Dialect;

/// The condition that a row of `credentials` is neither revoked nor expired. It must agree with
/// [`CredentialState::at`](crate::domain::CredentialState::at), which decides the same for rows that were
/// read. Expiries are in whole seconds, and so is `now_in_seconds`.
pub(crate) fn holds(now_in_seconds: &str) -> String {
    format!(
        "credentials.revoked_at IS NULL \
         AND (credentials.expires_at IS NULL OR credentials.expires_at > {now_in_seconds})"
    )
}

/// The condition that a row of `organization_changes` is this caller's change under this key: a replay.
fn recorded_under(subject: &str, key: &str) -> String {
    format!(
        "organization_changes.subject = {subject} AND organization_changes.idempotency_key = {key}"
    )
}

/// The same condition, as a filter of a SeaORM query.
pub(crate) fn is_recorded_under(backend: DbBackend, subject: &str, key: &str) -> Expr {
    let [first, second] = match backend {
        DbBackend::Sqlite => ["?", "?"],
        _ => ["$1", "$2"],
    };
    Expr::cust_with_values(recorded_under(first, second), [subject, key])
}

/// The condition of every write: the caller's credential is still valid, with the role and organization that
/// it had when the call was authenticated, and the caller made no change under the same key.
pub(crate) fn may_write(Dialect { now_in_seconds, .. }: &Dialect) -> String {
    let holds = holds(now_in_seconds);
    let recorded_under = recorded_under("pending.subject", "pending.idempotency_key");
    format!(
        "(pending.credential IS NULL OR EXISTS ( \
           SELECT 1 FROM credentials WHERE credentials.digest = pending.credential \
             AND credentials.role = pending.role \
             AND credentials.organization_id IS NOT DISTINCT FROM pending.member_of \
             AND {holds})) \
         AND (pending.idempotency_key IS NULL OR NOT EXISTS ( \
           SELECT 1 FROM organization_changes WHERE {recorded_under}))"
    )
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database, DbBackend, Statement};
    use time::{Duration, OffsetDateTime};

    use super::holds;
    use crate::domain::CredentialState;

    #[tokio::test]
    async fn a_statement_and_the_domain_agree_on_which_credentials_hold() {
        let database = Database::connect("sqlite::memory:").await.unwrap();
        let second = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let at = |seconds: Option<i64>| seconds.map(|seconds| second + Duration::seconds(seconds));
        let holds = holds("$3");
        let ask = format!(
            "SELECT {holds} AS holds FROM (SELECT $1 AS expires_at, $2 AS revoked_at) AS credentials"
        );
        for (expires, revoked, expected) in [
            (None, None, true),
            (Some(1), None, true),
            (Some(0), None, false),
            (Some(-1), None, false),
            (None, Some(-1), false),
            (None, Some(1), false),
            (Some(1), Some(0), false),
        ] {
            let (expires, revoked) = (at(expires), at(revoked));
            let values = [expires.into(), revoked.into(), second.into()];
            let ask = Statement::from_sql_and_values(DbBackend::Sqlite, ask.as_str(), values);
            let row = database.query_one_raw(ask).await.unwrap().unwrap();
            assert_eq!(
                row.try_get::<bool>("", "holds").unwrap(),
                expected,
                "{expires:?} {revoked:?}"
            );
            for now in [second, second + Duration::milliseconds(999)] {
                let state = CredentialState::at(now, expires, revoked);
                assert_eq!(state == CredentialState::Valid, expected, "{expires:?} {revoked:?}");
            }
        }
    }
}
