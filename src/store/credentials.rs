//! The statements on credentials. A secret never comes here, only its digest.

use std::{ops::RangeInclusive, time::Duration};

use orgd_shares::Holder;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, SqlErr, Statement, Value,
    sea_query::{Expr, InsertStatement, Query, UpdateStatement},
};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    Store, clock, entity::credentials, error::failure, options::STATEMENT_TIMEOUT_MAX,
    pools::holder, retry::ANSWER_TIME, sql::predicates::holds, uses::Digest,
};
use crate::domain::{
    Call, Credential, CredentialDigest, CredentialKind, CredentialState, Error, OrganizationId,
    Principal, Result, Role, StoredCredential, reason,
};

/// How often the task writes what is new.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Credentials in one statement. Shorter lists are filled up, so that there is one text to prepare.
const STATEMENT_CREDENTIALS: usize = 64;

impl Store {
    /// Who the credential with this digest proves its holder to be, while it holds. Looked up for whoever
    /// is known so far: before authentication the source.
    pub async fn find_principal(
        &self,
        holder: &Holder,
        digest: &CredentialDigest,
    ) -> Result<Option<Principal>> {
        let found = self.queues.credential(holder, *digest).await?;
        let Some(row) = found else { return Ok(None) };
        let state = CredentialState::at(clock::now(), row.expires_at, row.revoked_at);
        if state != CredentialState::Valid {
            return Ok(None);
        }
        let Credential { digest, subject, role, organization, expires_at, .. } =
            StoredCredential::try_from(row)?.credential;
        let subject = subject.into();
        Ok(Some(Principal { subject, role, organization, credential: Some(digest), expires_at }))
    }

    /// Whether the caller's credential still proves what it did when the call was authenticated.
    pub(super) async fn check_credential(&self, call: &Call) -> Result<()> {
        let principal = &call.principal;
        let Some(credential) = &principal.credential else { return Ok(()) };
        if self.find_principal(&holder(principal), credential).await?.as_ref() == Some(principal) {
            Ok(())
        } else {
            Err(Error::CredentialInvalid)
        }
    }

    /// Stores a credential. Refused where its secret or organization makes that impossible.
    pub async fn issue_credential(&self, credential: &Credential) -> Result<()> {
        let insert = insert(credential);
        let Err(error) = self.write(&insert).await else { return Ok(()) };
        match (error.sql_err(), credential.organization) {
            (Some(SqlErr::ForeignKeyConstraintViolation(_)), Some(id)) => Err(Error::NotFound(id)),
            (Some(SqlErr::UniqueConstraintViolation(_)), _) => Err(Error::invalid(
                "secret",
                reason::CREDENTIAL_ALREADY_EXISTS,
                "This secret belongs to a credential already; revoked ones are not used again.",
            )),
            _ => Err(failure(error)),
        }
    }

    /// Every credential, the newest first.
    pub async fn list_credentials(&self) -> Result<Vec<StoredCredential>> {
        let newest_first = newest_first();
        stored(self.retried(|| newest_first.clone().all(&self.pools.reader)).await)
    }

    /// The credentials with digests in a range, two at most: enough to tell one from several.
    pub async fn find_credentials(
        &self,
        digests: RangeInclusive<[u8; 32]>,
    ) -> Result<Vec<StoredCredential>> {
        let found = two_of(digests);
        stored(self.retried(|| found.clone().all(&self.pools.reader)).await)
    }

    /// Whether a subject has a credential that holds.
    pub async fn has_credential(&self, subject: &str) -> Result<bool> {
        self.finds(&held_by_subject(), vec![subject.into(), clock::now_in_seconds().into()]).await
    }

    /// Whether anybody has a credential that holds.
    pub async fn has_credentials(&self) -> Result<bool> {
        self.finds(&held(), vec![clock::now_in_seconds().into()]).await
    }

    async fn finds(&self, statement: &str, values: Vec<Value>) -> Result<bool> {
        let held = Statement::from_sql_and_values(self.pools.backend(), statement, values);
        let found = self.retried(|| self.pools.reader.query_all_raw(held.clone())).await;
        found.map(|rows| !rows.is_empty()).map_err(failure)
    }

    /// Ends a credential, which cannot be taken up again, an expired one too. Answers whether it had
    /// not been revoked before. Writes that began earlier may still be under way:
    /// [`Store::outlast_older_writes`] waits for their end.
    pub async fn revoke_credential(&self, digest: CredentialDigest) -> Result<bool> {
        self.write(&revoke(digest)).await.map(|rows| !rows.is_empty()).map_err(failure)
    }

    /// Waits until nothing more is written by what this credential proved before its row was last
    /// changed.
    ///
    /// A write checks its credential in its own statement and locks nothing, so a change of the
    /// credential waits for nobody, however busy its holder is. PostgreSQL: a statement that began
    /// after the change sees it; one that began before lives no longer than its limit, which
    /// `renewal` verifies on every connection. Its commit is not part of that limit: a
    /// stalled disk or standby can hold it. Commits are flushed and replicated in their order, so one
    /// more commit ends after it. SQLite has one writer: whoever writes after the change sees it.
    pub async fn outlast_older_writes(&self, digest: CredentialDigest) -> Result<()> {
        if self.pools.backend() == DbBackend::Sqlite {
            return Ok(());
        }
        sleep(STATEMENT_TIMEOUT_MAX + ANSWER_TIME).await;
        self.write(&touch(digest)).await.map(drop).map_err(failure)
    }

    /// Notes that a credential was used at a second. Answers the second that is noted, which does for every
    /// use that [`is_noted`] says it does for.
    #[must_use]
    pub fn note_use(&self, digest: CredentialDigest, at: i64) -> i64 {
        self.uses.note(digest, at)
    }

    /// Writes what is noted, again and again. What is new at the end of the process is lost.
    pub async fn keep_writing_uses(&self) {
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.write_uses().await;
        }
    }

    async fn write_uses(&self) {
        let now = clock::now_in_seconds();
        let unwritten = self.uses.unwritten(now.unix_timestamp());
        for some in unwritten.chunks(STATEMENT_CREDENTIALS) {
            if let Err(error) = self.write(&used(some, now)).await {
                // Of a database that takes no writes others tell.
                tracing::debug!(%error, "cannot write when credentials were used");
                return;
            }
            self.uses.written(some);
        }
    }
}

fn insert(credential: &Credential) -> InsertStatement {
    let row = credentials::ActiveModel {
        digest: Set(credential.digest.0.to_vec()),
        kind: Set(credential.kind.as_str().to_owned()),
        subject: Set(credential.subject.clone()),
        role: Set(credential.role.as_str().to_owned()),
        organization_id: Set(credential.organization.map(OrganizationId::get)),
        expires_at: Set(credential.expires_at),
        revoked_at: NotSet,
        description: Set(credential.description.clone()),
        created_at: Set(clock::now()),
        last_used_time: NotSet,
    };
    credentials::Entity::insert(row).into_query()
}

fn newest_first() -> Select<credentials::Entity> {
    credentials::Entity::find().order_by_desc(credentials::Column::CreatedAt)
}

fn two_of(digests: RangeInclusive<[u8; 32]>) -> Select<credentials::Entity> {
    let (first, last) = digests.into_inner();
    let between = credentials::Column::Digest.between(first.to_vec(), last.to_vec());
    credentials::Entity::find().filter(between).limit(2)
}

fn held() -> String {
    format!("SELECT 1 FROM credentials WHERE {} LIMIT 1", holds("$1"))
}

fn held_by_subject() -> String {
    format!("SELECT 1 FROM credentials WHERE subject = $1 AND {} LIMIT 1", holds("$2"))
}

fn revoke(digest: CredentialDigest) -> UpdateStatement {
    credentials::Entity::update_many()
        .col_expr(credentials::Column::RevokedAt, Expr::value(clock::now()))
        .filter(credentials::Column::Digest.eq(digest.0.to_vec()))
        .filter(credentials::Column::RevokedAt.is_null())
        .into_query()
        .returning(Query::returning().column(credentials::Column::Digest))
        .to_owned()
}

/// Writes the row as it is.
fn touch(digest: CredentialDigest) -> UpdateStatement {
    let revoked_at = credentials::Column::RevokedAt;
    credentials::Entity::update_many()
        .col_expr(revoked_at, Expr::col(revoked_at))
        .filter(credentials::Column::Digest.eq(digest.0.to_vec()))
        .into_query()
}

/// Every statement on credentials that no worker does.
pub(super) fn texts(backend: DbBackend) -> Vec<String> {
    let digest = CredentialDigest([0; 32]);
    let credential = Credential {
        digest,
        kind: CredentialKind::Bearer,
        subject: String::new(),
        role: Role::Support,
        organization: None,
        expires_at: None,
        description: None,
    };
    vec![
        backend.build(&insert(&credential)).sql,
        newest_first().build(backend).sql,
        two_of(digest.0..=digest.0).build(backend).sql,
        held(),
        held_by_subject(),
        backend.build(&revoke(digest)).sql,
        backend.build(&touch(digest)).sql,
        backend.build(&used(&[(digest.0, 0)], clock::now_in_seconds())).sql,
    ]
}

/// The statement that notes a use of each of these, unless another instance has noted a later one.
fn used(credentials: &[(Digest, i64)], now: OffsetDateTime) -> UpdateStatement {
    let digests = credentials.iter().map(|(digest, _)| digest.to_vec());
    let last = digests.clone().next_back().unwrap_or_default();
    let filled = digests.chain(std::iter::repeat(last)).take(STATEMENT_CREDENTIALS);
    let last_used = credentials::Column::LastUsedTime;
    credentials::Entity::update_many()
        .col_expr(last_used, Expr::value(now))
        .filter(credentials::Column::Digest.is_in(filled))
        .filter(Condition::any().add(last_used.is_null()).add(last_used.lt(now)))
        .into_query()
}

fn stored(
    found: std::result::Result<Vec<credentials::Model>, DbErr>,
) -> Result<Vec<StoredCredential>> {
    let rows = found.map_err(failure)?;
    rows.into_iter().map(StoredCredential::try_from).collect()
}
