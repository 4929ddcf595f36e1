//! What was tried, and the words for what became of it.

use std::fmt;

use sea_orm::DbErr;
use secrecy::SecretString;

use crate::store::{trouble::Trouble, url::Place};

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: &'static str,
    /// What was seen; where it will not do, why.
    pub said: String,
    pub will_do: bool,
}

/// What a trial says: what was seen, or why it will not do.
pub(super) type Found = Result<String, String>;

/// What was tried so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Answers whether it will do.
    pub(super) fn note(&mut self, name: &'static str, found: Found) -> bool {
        let will_do = found.is_ok();
        let (Ok(said) | Err(said)) = found;
        self.0.push(Finding { name, said, will_do });
        will_do
    }

    pub(super) fn all(self) -> Vec<Finding> {
        self.0
    }
}

/// The words of an error, with the place of the database.
pub(super) async fn words(error: impl Into<DbErr>, url: &SecretString) -> String {
    Trouble::at(&error.into(), url).await.to_string()
}

/// Of a statement that the database refuses.
pub(super) fn refused(text: &str, error: impl fmt::Display) -> String {
    let begin: String = text.chars().take(80).collect();
    format!("it refuses the statement that begins with `{begin}`: {error}")
}

pub(super) fn place(url: &SecretString) -> String {
    Place::of(url).unwrap_or_default().to_string()
}
