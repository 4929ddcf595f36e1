//! What commands print: one value as JSON for programs, or as text for people.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Prints a line to standard output.
pub(super) fn line(text: &str) -> Result<()> {
    writeln!(stdout().lock(), "{text}").context("cannot write to standard output")
}

/// Prints lines to standard output.
pub(super) fn text(text: &str) -> Result<()> {
    write!(stdout().lock(), "{text}").context("cannot write to standard output")
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
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let aligned = |cells: &&Vec<String>| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(aligned).collect::<Vec<_>>().join("\n")
}

/// A time as RFC 3339 writes it.
pub(super) fn time(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
