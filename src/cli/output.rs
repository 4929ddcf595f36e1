//! What commands print: one value as JSON for programs, or as text for people.

use std::{
    io::{self, ErrorKind, Write, stdout},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Error, Result};
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use unicode_width::UnicodeWidthStr;

use crate::{
    domain::{self, Violation},
    grpc::status::reason_of,
    telemetry::causes,
};

const HEADING: Style = Style::new().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

pub(super) const WRONG_WORDS: u8 = 2;

/// Whoever reads standard output has seen enough, as `head` has: the end of a command, and no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output")]
struct SeenEnough;

/// A failure whose exit code tells programs what it is.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct Failed {
    code: u8,
    sentence: String,
}

impl Failed {
    pub(super) fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }
}

pub(super) fn line(text: &str) -> Result<()> {
    // Takes the colours away where nobody sees them.
    printed(writeln!(anstream::stdout(), "{text}"))
}

pub(super) fn text(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    printed(write!(stdout, "{text}").and_then(|()| stdout.flush()))
}

fn printed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(SeenEnough.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value: on one line where `json` asks for it, else as `text` says it.
pub(super) fn value(json: bool, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
    if json { line(&value.to_string()) } else { line(&text()) }
}

/// Rows under their headings, in columns as wide as their widest cell.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&headings).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|cells| cells.get(column));
        // As a terminal shows them: many characters of Asia take two columns.
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let aligned = |cells: &&Vec<String>| {
        let cells = cells.iter().zip(&widths);
        let padded = |(cell, width): (&String, &usize)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())))
        };
        let cells: Vec<String> = cells.map(padded).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = lines.iter().map(aligned);
    let head = lines.next().unwrap_or_default();
    let head = format!("{HEADING}{head}{HEADING:#}");
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

pub(super) fn json_lines(mut values: impl Iterator<Item = impl Serialize>) -> Result<()> {
    values.try_for_each(|value| line(&serde_json::to_value(value)?.to_string()))
}

/// Says something to whoever runs the command: standard output has data alone.
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Prints what went wrong to standard error; where that is closed, the exit code has to do.
fn error(text: &str) {
    let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {text}");
}

/// A refusal of the database's commands: a sentence and its reason, as those of a service have them.
fn refusal(error: &domain::Error) -> String {
    match error {
        domain::Error::Invalid(violations) => {
            let sentence = |one: &Violation| format!("{} ({})", one.description, one.reason);
            violations.iter().map(sentence).collect::<Vec<_>>().join("\n  ")
        }
        // Its own words are for clients of a service.
        domain::Error::Unavailable(cause) | domain::Error::Internal(cause) => {
            format!("the database cannot be used: {} ({})", causes(&**cause), reason_of(error))
        }
        domain::Error::OutcomeUnknown(cause) => format!(
            "the database cannot be used; look whether the change is stored: {} ({})",
            causes(&**cause),
            reason_of(error)
        ),
        error => format!("{error} ({})", reason_of(error)),
    }
}

pub(super) fn failure(error: &Error) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            // clap prints help alone.
            self::error("a command is missing\n");
        }
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(WRONG_WORDS) } else { ExitCode::SUCCESS };
    }
    if error.is::<SeenEnough>() {
        return ExitCode::SUCCESS;
    }
    self::error(&error.downcast_ref().map_or_else(|| format!("{error:#}"), refusal));
    error.downcast_ref().map_or(ExitCode::FAILURE, |Failed { code, .. }| ExitCode::from(*code))
}

/// A message's time, which prost writes as RFC 3339; empty where there is none.
pub(super) fn timestamp(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

pub(super) fn time(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
