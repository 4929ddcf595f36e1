//! Markdown: tables, and the numbers in them.

use std::fmt;

use crate::{
    measure::Measurement,
    results::{Metric, Results},
};

/// A table, aligned so that it can be read as text too.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            // The first column is a name, all others are numbers.
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column == 0 {
                    write!(formatter, "| {cell:width$} ")?;
                } else {
                    write!(formatter, "| {cell:>width$} ")?;
                }
            }
            writeln!(formatter, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let colon = if column == 0 { "-" } else { ":" };
                    write!(formatter, "| {}{colon} ", "-".repeat(width - 1))?;
                }
                writeln!(formatter, "|")?;
            }
        }
        Ok(())
    }
}

/// A number, or a dash where there is none.
pub fn number(number: Option<f64>, decimals: usize) -> String {
    number.map_or("–".to_owned(), |number| format!("{number:.decimals$}"))
}

fn refused(found: &Measurement) -> bool {
    found.report.refused_rate > 0.0
}

/// The columns of the table of all numbers, with their decimals.
const COLUMNS: [(&str, Metric, usize); 11] = [
    ("requests/s", |found| Some(found.report.rate), 0),
    ("p50 ms", |found| Some(found.report.p50), 2),
    ("p99 ms", |found| Some(found.report.p99), 2),
    ("p99.9 ms", |found| Some(found.report.p999), 2),
    ("refused/s", |found| Some(found.report.refused_rate), 0),
    ("refused p99 ms", |found| refused(found).then_some(found.report.refused_p99), 2),
    ("service CPU s/10k", |found| found.service_cpu.map(|cpu| cpu * 1e4), 2),
    ("database CPU s/10k", |found| found.database_cpu.map(|cpu| cpu * 1e4), 2),
    ("memory MiB", |found| found.resident, 1),
    ("WAL syncs/request", |found| found.wal_syncs, 3),
    ("batch", |found| found.batch_size, 2),
];

/// Everything that was measured, and below it how requests failed.
pub fn numbers(results: &Results) -> String {
    let names = COLUMNS.iter().map(|(name, ..)| *name);
    let header: Vec<&str> = ["system", "connections"].into_iter().chain(names).collect();
    let mut table = Table::new(&[&header[..], &["errors"]].concat());
    let mut failures = String::new();
    for key in results.keys() {
        let mut cells = vec![key.0.to_owned(), key.1.to_string()];
        for (_, metric, decimals) in COLUMNS {
            cells.push(number(results.median(key, metric), decimals));
        }
        let (errors, first) = results.errors(key);
        cells.push(if errors > 0 { format!("**{errors}**") } else { "0".to_owned() });
        table.row(cells);
        if let Some(first) = first {
            failures += &format!("\n{} under {} connections: {first}\n", key.0, key.1);
        }
    }
    format!("{table}{failures}")
}

/// One line of progress.
impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {} connections", self.name, self.connections)?;
        for (name, metric, decimals) in COLUMNS {
            if let Some(found) = metric(self) {
                write!(formatter, ", {name} {found:.decimals$}")?;
            }
        }
        write!(formatter, ", others' CPU {:.2}, speed {:.2}", self.other_cpu, self.speed)?;
        if self.report.errors > 0 {
            write!(formatter, ", {} ERRORS", self.report.errors)?;
        }
        Ok(())
    }
}
