//! Updates, or creations, that are certain to share a batch: every worker that writes is kept busy, by a
//! transaction that the test holds open, until all of them wait.
//!
//! Whoever sees them wait all at once knows that no worker has any of them, so the next free one takes them all.
//! On PostgreSQL no worker can be kept busy for longer than [`STATEMENT_TIMEOUT_MAX`], after which it takes what is
//! there. A test that comes too late is [`Spoiled`], and starts again with another database.

use std::sync::Arc;

use orgd::store::STATEMENT_TIMEOUT_MAX;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, TransactionTrait};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use super::{ADMINISTRATOR, Database, PATIENCE, PATIENT, Request, Service};

/// What every primer makes an organization's name: such a write fails, so none leaves anything behind.
pub const PRIMER: &str = "Primer";

/// The organizations of the primers that update: on PostgreSQL one for whoever is alone, and one for each worker, as
/// none does two updates of one organization at once.
pub const PRIMED: [i64; 3] = [997, 998, 999];

/// What the primers wait for on PostgreSQL.
const ADVISORY_LOCK: i64 = 1;

/// How often a test starts again.
const TRIES_MAX: usize = 20;

/// A worker took something before all was there.
#[derive(Debug)]
pub struct Spoiled;

/// Keeps primers back, and so the workers that have them, until it is let go.
pub struct Hold {
    transaction: Mutex<Option<DatabaseTransaction>>,
    /// Until when no worker gives up for certain. None: it waits as long as it takes.
    end: Option<Instant>,
}

/// The workers of one queue, which are busy.
pub struct HeldWrites<'a> {
    service: &'a Service,
    queue: &'static str,
    hold: Hold,
    /// Primers in the queue. Their callers have gone, so no worker does them.
    before: usize,
    /// Primers that workers have.
    primers: JoinSet<()>,
}

/// Keeps the workers that update busy.
pub async fn hold_updates(service: &Service) -> HeldWrites<'_> {
    let date = "SELECT date_created FROM organizations LIMIT 1";
    let row = |id| format!("({id}, 'Of primers', 0, 1, ({date}), ({date}))");
    let insert = format!(
        "INSERT INTO organizations (id, name, handshake_version, version, date_created, \
         date_modified) VALUES {} ON CONFLICT (id) DO NOTHING",
        PRIMED.map(row).join(", ")
    );
    service.database().execute(&insert).await;
    hold(service, "updates", PRIMED.len()).await
}

/// Keeps the worker that creates busy, and the connection of whoever is alone.
pub async fn hold_creations(service: &Service) -> HeldWrites<'_> {
    hold(service, "creations", 2).await
}

async fn hold<'a>(
    service: &'a Service,
    queue: &'static str,
    postgres_primers: usize,
) -> HeldWrites<'a> {
    let hold = hold_primers(service.database()).await;
    let mut writes = HeldWrites { service, queue, hold, before: 0, primers: JoinSet::new() };
    if service.database().is_sqlite() {
        writes.occupy_sqlite().await;
    } else {
        writes.occupy_postgres(postgres_primers).await;
    }
    writes
}

/// Nobody else writes to a SQLite file; on PostgreSQL the primers wait, and nothing else. After that they fail.
pub async fn hold_primers(database: &Database) -> Hold {
    if database.is_sqlite() {
        for event in ["INSERT", "UPDATE"] {
            let trigger = format!(
                "CREATE TRIGGER IF NOT EXISTS primers_{event} BEFORE {event} ON organizations \
                 WHEN NEW.name = '{PRIMER}' BEGIN SELECT RAISE(ABORT, 'a primer'); END"
            );
            database.execute(&trigger).await;
        }
        return Hold { transaction: Mutex::new(Some(database.hold().await)), end: None };
    }
    // A worker waits for a lock no longer than 250 ms, so the primers put that limit off. They have the rights of the
    // test, as the role of a service over a strict PostgreSQL may take no such lock.
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION primers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
           PERFORM set_config('lock_timeout', '0', true), pg_advisory_xact_lock({ADVISORY_LOCK}); \
           RAISE EXCEPTION 'a primer'; END $$; \
         CREATE OR REPLACE TRIGGER primers BEFORE INSERT OR UPDATE ON organizations FOR EACH ROW \
           WHEN (NEW.name = '{PRIMER}') EXECUTE FUNCTION primers()"
    );
    database.execute(&trigger).await;
    let transaction = database.connect().await.begin().await.unwrap();
    let lock = format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
    transaction.execute_unprepared(&lock).await.unwrap();
    // A worker's limit starts later.
    let end = Some(Instant::now() + STATEMENT_TIMEOUT_MAX);
    Hold { transaction: Mutex::new(Some(transaction)), end }
}

impl Hold {
    /// Fails if a worker may be free.
    pub fn check(&self) -> Result<(), Spoiled> {
        match self.end {
            Some(end) if end <= Instant::now() => Err(Spoiled),
            _ => Ok(()),
        }
    }

    /// Waits until so many primers wait on PostgreSQL, or until a worker may be free.
    pub async fn until_waiting(&self, count: usize) {
        while self.waiters().await < count && self.check().is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many primers wait on PostgreSQL.
    async fn waiters(&self) -> usize {
        let transaction = self.transaction.lock().await;
        let transaction = transaction.as_ref().expect("not released yet");
        let ask = "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database \
            WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
        let ask = Statement::from_string(transaction.get_database_backend(), ask);
        transaction.query_all_raw(ask).await.unwrap().len()
    }

    pub async fn release(&self) {
        if let Some(transaction) = self.transaction.lock().await.take() {
            transaction.rollback().await.unwrap();
        }
    }
}

impl HeldWrites<'_> {
    fn primer(&self, id: i64) -> Request {
        let body = format!(r#"{{"name": "{PRIMER}"}}"#);
        if self.queue == "updates" {
            return self.service.put(id, ADMINISTRATOR, &body);
        }
        self.service.request("POST", "/v1/organizations").bearer(ADMINISTRATOR).body(body)
    }

    /// SQLite cannot say who waits for the file. So two primers are sent until one is left in the queue when their
    /// time is over: then the worker has the other one, or tests its connection.
    async fn occupy_sqlite(&mut self) {
        for deadline in ["50m", "300m", "1S", "5S", "20S"] {
            // Of one organization, so that the worker does not take both at once.
            let primer = || self.primer(PRIMED[0]).header("grpc-timeout", deadline).send();
            let (first, second) = tokio::join!(primer(), primer());
            for primer in [first, second] {
                assert_eq!(primer.reason(), "DEADLINE_EXCEEDED", "{}", primer.text());
            }
            // The worker that looks up has one thread with that which writes: with this answer the latter has had its
            // turn as well.
            let path = format!("/v1/organizations/{}", PRIMED[0]);
            self.service.request("GET", &path).bearer(ADMINISTRATOR).send().await;
            self.before = self.service.waiting_in(self.queue).await;
            if self.before > 0 {
                return;
            }
        }
        panic!("the worker takes all primers");
    }

    /// One after the other, else one worker takes two primers.
    async fn occupy_postgres(&mut self, primers: usize) {
        for (id, count) in PRIMED.into_iter().zip(1..=primers) {
            let primer = self.primer(id);
            self.primers.spawn(async move { drop(primer.send().await) });
            self.hold.until_waiting(count).await;
        }
    }

    /// Whether the queue has primers, each of which takes a place of it.
    pub fn has_waiting_primers(&self) -> bool {
        self.before > 0
    }

    /// To be called once somebody was refused: before that the queue forgets callers that have gone.
    pub fn forget_primers(&mut self) {
        self.before = 0;
    }

    /// Fails if a worker may be free.
    pub fn check(&self) -> Result<(), Spoiled> {
        self.hold.check()
    }

    /// How many wait, without primers.
    pub async fn waiting(&self) -> usize {
        self.service.waiting_in(self.queue).await.saturating_sub(self.before)
    }

    /// Waits until so many wait, and no more.
    pub async fn until_waiting(&self, count: usize) -> Result<(), Spoiled> {
        let waiting = async {
            while self.waiting().await != count {
                self.check()?;
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        timeout(PATIENCE, waiting).await.expect("so many wait")
    }

    /// Lets the workers go.
    pub async fn release(&self) {
        self.hold.release().await;
    }

    /// Lets the workers go once so many wait, which are one batch then: as many as are sent meanwhile.
    pub async fn batch<T>(
        &self,
        count: usize,
        sending: impl Future<Output = T>,
    ) -> Result<T, Spoiled> {
        let releasing = async {
            let all = self.until_waiting(count).await;
            self.release().await;
            all
        };
        let (sent, all) = tokio::join!(sending, releasing);
        all.map(|()| sent)
    }
}

/// Runs a test against a service over SQLite and one over PostgreSQL, each patient and with settings besides. It
/// starts again where it was spoiled.
pub async fn unspoiled_on_both_databases(
    settings: &[(&str, &str)],
    test: impl AsyncFn(Service) -> Result<(), Spoiled>,
) {
    for database in Database::of_each_kind().await {
        unspoiled_on(database, settings, &test).await;
    }
}

/// The same on one database, and further ones of its kind.
pub async fn unspoiled_on(
    mut database: Database,
    settings: &[(&str, &str)],
    test: impl AsyncFn(Service) -> Result<(), Spoiled>,
) {
    let settings = [&PATIENT, settings].concat();
    for _ in 0..TRIES_MAX {
        eprintln!("over {}", database.kind());
        database.seed().await;
        let is_sqlite = database.is_sqlite();
        let service = Service::start_with(Arc::new(database), &settings).await;
        if test(service).await.is_ok() {
            return;
        }
        eprintln!("spoiled");
        database = if is_sqlite { Database::sqlite() } else { Database::postgres().await };
    }
    panic!("the machine is too slow: spoiled {TRIES_MAX} times");
}
