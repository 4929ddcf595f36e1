//! The processes that an abuse meets, and what is stored behind them.

use std::{process::Command, sync::Arc};

use sea_orm::ConnectionTrait;
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::{Database, FOREIGN, Service, UNCOUNTED, orgd};

/// One trial at a time: what is measured is what an abuse does to others, not what trials do.
static TRIAL: Mutex<()> = Mutex::const_new(());

/// With which users are not kept from calling as often as they like: what others get is then a matter of
/// shares alone.
pub const NO_RATE_LIMITS: [(&str, &str); 1] = [UNCOUNTED];

/// Letters of one byte and of four: of a text as long as may be, the service makes long answers by either,
/// and the larger ones cost it the least work for a byte.
pub const LONG: char = 'x';
pub const LONGEST: char = '\u{1f3e2}';
/// More entries than the longest page has.
pub const ENTRIES: i64 = 600;

pub struct Stage {
    pub service: Service,
    pub gateway: Option<Service>,
    /// The secret of a user of the foreign organization, who is honest.
    pub honest: String,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    pub async fn over(database: Database, settings: &[(&str, &str)]) -> Self {
        let alone = TRIAL.lock().await;
        raise_open_files();
        database.seed().await;
        let honest = user_of(&database, FOREIGN);
        let service = Service::start_with(Arc::new(database), settings).await;
        Self { service, gateway: None, honest, _alone: alone }
    }

    /// The same with a gateway before it, through which everyone comes.
    pub async fn with_gateway(database: Database, settings: &[(&str, &str)]) -> Self {
        let mut stage = Self::over(database, settings).await;
        stage.gateway = Some(Service::start_gateway_with(&stage.service, "http", settings).await);
        stage
    }

    /// Where REST is called.
    pub fn front(&self) -> &Service {
        self.gateway.as_ref().unwrap_or(&self.service)
    }

    pub fn processes(&self) -> impl Iterator<Item = (&'static str, &Service)> {
        let gateway = self.gateway.as_ref().map(|gateway| ("gateway", gateway));
        [("service", &self.service)].into_iter().chain(gateway)
    }
}

pub async fn databases() -> [Database; 2] {
    [Database::sqlite(), Database::postgres().await]
}

/// Issues a credential of a user, and answers its secret.
pub fn user_of(database: &Database, organization: i64) -> String {
    let words = format!(
        "credential issue --role user --organization {organization} --subject user-{organization} \
         --json"
    );
    let issued = orgd(database.url(), &words).json();
    issued["secret"].as_str().unwrap().to_owned()
}

/// Gives the organizations of a range so many more versions, each with texts of 255 letters.
pub async fn lengthen_logs(
    database: &Database,
    [first, last]: [i64; 2],
    entries: i64,
    letter: char,
) {
    let connection = database.connect().await;
    let letters = letter.to_string().repeat(247);
    // The last eight are digits, by which each differs from the one before.
    let value = format!("'{letters}' || (10000000 + versions.version)");
    let add = format!(
        "WITH RECURSIVE versions(version) AS (SELECT 2 UNION ALL SELECT version + 1 FROM versions \
         WHERE version <= {entries}) INSERT INTO organization_changes (organization_id, version, \
         date, subject, role, request_id, name, subscription_id, handshake_version) SELECT id, \
         versions.version, date_created, 'operator', 'administrator', 'seed', {value}, {value}, 0 \
         FROM organizations CROSS JOIN versions WHERE id BETWEEN {first} AND {last}"
    );
    let version = entries + 1;
    let value = format!("'{letters}{}'", 10_000_000 + version);
    let update = format!(
        "UPDATE organizations SET version = {version}, name = {value}, subscription_id = {value} \
         WHERE id BETWEEN {first} AND {last}"
    );
    for statement in [add, update] {
        connection.execute_unprepared(&statement).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// Lets this process, and those that it starts, open as many files as it may.
fn raise_open_files() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = files.split_whitespace().nth(4).unwrap();
    let arguments = [format!("--pid={}", std::process::id()), format!("--nofile={hard}:{hard}")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}
