//! A lease that one instance holds while it migrates: one row with an owner and an end.
//!
//! A row works on every engine that speaks SQL; advisory locks do not exist on distributed
//! PostgreSQL engines. A holder that dies is followed by another after [`LEASE`].

use std::{
    future::Future,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sea_orm_migration::{prelude::*, schema::*, sea_orm::ConnectionTrait};
use tokio::time::{Instant, sleep};

use crate::refusal::is_lost_to_another;

/// Longer than the clocks of two instances should differ.
const LEASE: Duration = Duration::from_secs(30);
const RENEWAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);
const TABLE: &str = "migration_lease";
const ID: i32 = 1;

/// Runs `work` while this instance alone holds the lease, which it waits for.
pub(crate) async fn while_held<C, F>(db: &C, work: F) -> Result<(), DbErr>
where
    C: ConnectionTrait,
    F: Future<Output = Result<(), DbErr>>,
{
    let owner = owner()?;
    create_table(db).await?;
    let mut is_waiting = false;
    while !take(db, &owner).await? {
        if !is_waiting {
            tracing::warn!("another instance is migrating; waiting for its lease");
            is_waiting = true;
        }
        sleep(RETRY).await;
    }
    let done = tokio::select! {
        done = work => done,
        lost = renew(db, &owner) => Err(lost),
    };
    // A failing work is the more important word.
    let released = release(db, &owner).await;
    done.and(released)
}

/// Creates the lease's table. Two `CREATE TABLE IF NOT EXISTS` at once can collide in PostgreSQL's
/// catalogue, so a failure counts only when the table is still missing afterwards, and nobody is creating it.
async fn create_table<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    let create = Table::create()
        .table(TABLE)
        .if_not_exists()
        .col(integer("id").primary_key())
        .col(text("owner"))
        .col(big_integer("expires_at_ms"))
        .to_owned();
    let probe = Query::select().expr(Expr::val(1)).from(TABLE).limit(1).to_owned();
    loop {
        let Err(error) = db.execute(&create).await else { return Ok(()) };
        if db.query_all(&probe).await.is_ok() {
            return Ok(());
        }
        if !is_lost_to_another(&error) {
            return Err(error);
        }
        sleep(RETRY).await;
    }
}

/// Takes the lease when nobody holds it, or when its holder let it run out.
async fn take<C: ConnectionTrait>(db: &C, owner: &str) -> Result<bool, DbErr> {
    let now = now_ms()?;
    let insert = Query::insert()
        .into_table(TABLE)
        .columns(["id", "owner", "expires_at_ms"])
        .values_panic([ID.into(), owner.into(), end_ms(now).into()])
        .on_conflict(
            OnConflict::column("id")
                .update_columns(["owner", "expires_at_ms"])
                .action_and_where(Expr::col((TABLE, "expires_at_ms")).lt(now))
                .to_owned(),
        )
        .to_owned();
    match db.execute(&insert).await {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(error) if is_lost_to_another(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends with the reason why the lease cannot be prolonged. One failure is no end: the lease outlasts several.
async fn renew<C: ConnectionTrait>(db: &C, owner: &str) -> DbErr {
    let mut ends = Instant::now() + LEASE;
    loop {
        sleep(RENEWAL).await;
        match prolong(db, owner).await {
            Ok(0) => {
                return DbErr::Migration("another instance took the migration lease".to_owned());
            }
            Ok(_) => ends = Instant::now() + LEASE,
            Err(error) if Instant::now() + RENEWAL > ends => return error,
            Err(error) => tracing::warn!(%error, "cannot prolong the migration lease"),
        }
    }
}

/// How many rows were prolonged: one, or none where somebody else has the lease.
async fn prolong<C: ConnectionTrait>(db: &C, owner: &str) -> Result<u64, DbErr> {
    let update = Query::update()
        .table(TABLE)
        .value("expires_at_ms", end_ms(now_ms()?))
        .and_where(Expr::col("owner").eq(owner))
        .to_owned();
    Ok(db.execute(&update).await?.rows_affected())
}

/// Instances that wait for the lease lock its row for moments, as each question of theirs is a write. A
/// lease that cannot be given back runs out by itself.
async fn release<C: ConnectionTrait>(db: &C, owner: &str) -> Result<(), DbErr> {
    let delete =
        Query::delete().from_table(TABLE).and_where(Expr::col("owner").eq(owner)).to_owned();
    let ends = Instant::now() + LEASE;
    while let Err(error) = db.execute(&delete).await {
        if !is_lost_to_another(&error) {
            return Err(error);
        }
        if Instant::now() > ends {
            break;
        }
        sleep(RETRY).await;
    }
    Ok(())
}

/// Process and moment: containers may all have process id 1.
fn owner() -> Result<String, DbErr> {
    let since_epoch = since_epoch()?;
    Ok(format!("{}-{}", process::id(), since_epoch.as_nanos()))
}

fn now_ms() -> Result<i64, DbErr> {
    Ok(as_ms(since_epoch()?))
}

fn end_ms(now: i64) -> i64 {
    now.saturating_add(as_ms(LEASE))
}

fn as_ms(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the store, with its clock, builds on this crate")]
fn since_epoch() -> Result<Duration, DbErr> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| DbErr::Migration("the clock is before 1970".to_owned()))
}
