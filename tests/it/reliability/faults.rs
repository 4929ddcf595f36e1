//! The proxy of the tests does what it says: a fault that does not happen would prove nothing.

use std::time::{Duration, Instant};

use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr, RuntimeErr, Statement,
    sqlx::{self, error::DatabaseError},
};

use crate::harness::{Database, Fault, PATIENCE, Proxy};

const WAIT: Duration = Duration::from_millis(300);

/// A database with a table, a proxy to it, and one connection through that.
struct Faulty {
    database: Database,
    proxy: Proxy,
    connection: DatabaseConnection,
}

impl Faulty {
    async fn start() -> Self {
        let database = Database::postgres().await;
        let direct = database.connect().await;
        direct.execute_unprepared("CREATE TABLE counters (value integer)").await.unwrap();
        direct.execute_unprepared("INSERT INTO counters VALUES (0)").await.unwrap();
        let proxy = Proxy::start(database.addr()).await;
        let mut options = ConnectOptions::new(database.behind(&proxy).url());
        options.max_connections(1).acquire_timeout(PATIENCE);
        // The statement is to be the first that meets a fault.
        options.test_before_acquire(false);
        let connection = sea_orm::Database::connect(options).await.unwrap();
        let faulty = Self { database, proxy, connection };
        faulty.increment().await.unwrap();
        faulty
    }

    /// Adds one, by a prepared statement.
    async fn increment(&self) -> Result<(), DbErr> {
        let update = "UPDATE counters SET value = value + $1";
        let update = Statement::from_sql_and_values(
            self.connection.get_database_backend(),
            update,
            [1.into()],
        );
        self.connection.execute_raw(update).await.map(drop)
    }

    async fn read(&self) -> Result<(), DbErr> {
        let select = Statement::from_string(
            self.connection.get_database_backend(),
            "SELECT value FROM counters",
        );
        self.connection.query_one_raw(select).await.map(drop)
    }

    /// Waits until the connection is back in its pool, after a ping of sqlx's.
    async fn until_idle(&self) {
        let pool = self.connection.get_postgres_connection_pool();
        let idle = async {
            while pool.num_idle() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, idle).await.expect("the connection is idle");
    }

    /// What is stored, seen past the proxy.
    async fn value(&self) -> i32 {
        let direct = self.database.connect().await;
        let select =
            Statement::from_string(direct.get_database_backend(), "SELECT value FROM counters");
        direct.query_one_raw(select).await.unwrap().unwrap().try_get("", "value").unwrap()
    }
}

/// The error of sqlx's under one of SeaORM's.
fn of_sqlx(error: &DbErr) -> &sqlx::Error {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            error
        }
        other => panic!("{other}"),
    }
}

fn assert_broken(error: &DbErr) {
    assert!(matches!(of_sqlx(error), sqlx::Error::Io(_)), "{error}");
}

#[tokio::test]
async fn the_fault_proxy_answers_statements_that_the_server_does_not_see() {
    let faulty = Faulty::start().await;
    faulty.proxy.set_for("UPDATE", Fault::Answer(2, "40001"));
    for _ in 0..2 {
        faulty.read().await.unwrap();
        let error = faulty.increment().await.unwrap_err();
        let code = of_sqlx(&error).as_database_error().and_then(DatabaseError::code);
        assert_eq!(code.as_deref(), Some("40001"));
    }
    assert_eq!((faulty.proxy.fault(), faulty.value().await), (Fault::Pass, 1));
    faulty.increment().await.unwrap();
    assert_eq!(faulty.value().await, 2);
}

#[tokio::test]
async fn the_fault_proxy_cuts_statements_before_and_after_they_are_done() {
    let faulty = Faulty::start().await;
    faulty.proxy.set(Fault::CutAfter(20));
    assert_broken(&faulty.increment().await.unwrap_err());
    assert_eq!(faulty.value().await, 1);
    faulty.increment().await.unwrap();
    faulty.proxy.set(Fault::CutAnswers(1));
    assert_broken(&faulty.increment().await.unwrap_err());
    assert_eq!((faulty.proxy.fault(), faulty.value().await), (Fault::Pass, 3));
    faulty.increment().await.unwrap();
    assert_eq!(faulty.value().await, 4);
}

#[tokio::test]
async fn the_fault_proxy_delays_holds_and_loses() {
    let faulty = Faulty::start().await;
    let started = Instant::now();
    faulty.proxy.set(Fault::Delay(WAIT));
    faulty.increment().await.unwrap();
    assert!(started.elapsed() >= 2 * WAIT);

    faulty.proxy.set(Fault::Pass);

    for fault in [Fault::Hold, Fault::BlackHole] {
        faulty.read().await.unwrap();
        faulty.until_idle().await;
        faulty.proxy.set(fault);
        // It is sent at once.
        tokio::time::timeout(WAIT, faulty.increment()).await.unwrap_err();
        assert_eq!(faulty.value().await, if fault == Fault::Hold { 2 } else { 3 }, "{fault:?}");
        faulty.proxy.set(Fault::Pass);
        let comes = async {
            while faulty.value().await != 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes).await.expect("what was held comes");
    }
    tokio::time::sleep(WAIT).await;
    assert_eq!(faulty.value().await, 3, "what was lost does not come");
}

#[tokio::test]
async fn the_fault_proxy_refuses_and_resets() {
    let faulty = Faulty::start().await;
    faulty.proxy.set(Fault::Refuse);
    faulty.increment().await.unwrap_err();
    faulty.increment().await.unwrap_err();
    faulty.proxy.set(Fault::Pass);
    faulty.increment().await.unwrap();

    let direct = faulty.database.connect().await;
    direct.execute_unprepared("BEGIN; LOCK TABLE counters").await.unwrap();
    let reset = async {
        tokio::time::sleep(WAIT).await;
        faulty.proxy.set(Fault::Reset);
    };
    let (broken, ()) = tokio::join!(faulty.increment(), reset);
    assert_broken(&broken.unwrap_err());
}
