//! The files of a SQLite database: whether those that the path names are still those that are open.
//!
//! Whoever removes or replaces one of them under a running service leaves it with files that nobody finds
//! again: it would read and write there, and say yes, until its end.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sea_orm::{DbErr, RuntimeErr};

/// A file, wherever it is moved within its file system.
type Identity = (u64, u64);

/// The files that are open; none on PostgreSQL.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Arc<State>);

#[derive(Debug, Default)]
struct State {
    opened: Vec<(PathBuf, Identity)>,
    /// Whether the log says that one of them is another.
    is_told: AtomicBool,
}

impl Files {
    /// Notes the files of a database that is open: the log and its index exist as long as it is.
    pub(super) fn opened(database: &Path) -> io::Result<Self> {
        let database = fs::canonicalize(database)?;
        let mut opened = Vec::new();
        for suffix in ["", "-wal", "-shm"] {
            let mut path = database.clone().into_os_string();
            path.push(suffix);
            if let Some(identity) = identity(path.as_ref()) {
                opened.push((path.into(), identity));
            }
        }
        Ok(Self(Arc::new(State { opened, is_told: AtomicBool::new(false) })))
    }

    /// Does work on files that are there before it and after it: what was done to others counts as not
    /// done.
    pub(super) async fn around<T>(
        &self,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        self.check()?;
        let done = work.await?;
        self.check()?;
        Ok(done)
    }

    fn check(&self) -> Result<(), DbErr> {
        let State { opened, is_told } = &*self.0;
        let lost = opened.iter().find(|(path, opened)| identity(path) != Some(*opened));
        let was_told = is_told.swap(lost.is_some(), Ordering::Relaxed);
        let Some((path, _)) = lost else {
            if was_told {
                tracing::info!("the database's files are back");
            }
            return Ok(());
        };
        let error = format!(
            "{} was removed or replaced while the service has it open: nothing is read or written \
             until it is back. To put another database in its place, stop the service first",
            path.display()
        );
        if !was_told {
            tracing::error!("{error}");
        }
        Err(DbErr::Conn(RuntimeErr::Internal(error)))
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
