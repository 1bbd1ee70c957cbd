//! What commands print: a table for people, one JSON document for scripts.

use std::io::Write;

use serde_json::Value;

use crate::clock::{Calendar, Now};
use crate::db::Db;
use crate::error::{Doing, Error, Result};

/// Widest column of a table, in characters.
const COLUMN_MAX: usize = 60;

/// What a command works with.
pub struct Console {
    /// The file.
    pub db: Db,
    /// The date.
    pub calendar: Calendar,
    /// The operating system's user.
    pub user: String,
    /// How many days both domains of a transfer are served.
    pub transfer_grace_days: u32,
    /// Whether to print JSON.
    pub json: bool,
}

/// How a command says what it has to say.
pub struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Console {
    /// This moment.
    pub fn now(&self) -> Now {
        self.calendar.now()
    }

    /// Prints `document` as JSON, or `table` for people.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn show(&self, document: &Value, table: &Table) -> Result<()> {
        if self.json {
            json(document)
        } else {
            table.print()
        }
    }

    /// Prints `document` as JSON, or one line for people.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn tell(&self, document: &Value, line: &str) -> Result<()> {
        if self.json {
            json(document)
        } else {
            text(&format!("{line}\n"))
        }
    }
}

/// Prints one JSON document.
///
/// # Errors
/// When standard output does not take it.
pub fn json(document: &Value) -> Result<()> {
    text(&format!("{document:#}\n"))
}

/// Prints `text` as it is. A reader that has seen enough is no error.
///
/// # Errors
/// When standard output does not take it.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.doing("print"),
    }
}

/// Prints a line on standard error: a message, not a result. That nobody reads it is no error.
pub fn message(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// The first line of standard input, without its end.
///
/// # Errors
/// [`Error::Usage`] when there is none.
pub fn first_line_of_input() -> Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .doing("read standard input")?;
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    if line.is_empty() {
        return Err(Error::Usage("standard input is empty".to_owned()));
    }
    Ok(line)
}

impl Table {
    /// A table with this head and no rows.
    pub fn new(head: &'static [&'static str]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    /// The same table with these rows.
    #[must_use]
    pub fn with(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    fn print(&self) -> Result<()> {
        text(&self.lines())
    }

    fn lines(&self) -> String {
        if self.rows.is_empty() {
            return "none\n".to_owned();
        }
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| printable(cell)).collect())
            .collect();
        let width = |column: usize| {
            let cells = shown
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            let head = self.head.get(column).map_or(0, |name| name.len());
            cells.max().unwrap_or(0).max(head)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        let head: Vec<String> = self
            .head
            .iter()
            .map(|name| (*name).to_uppercase())
            .collect();
        std::iter::once(line(&head))
            .chain(shown.iter().map(|row| line(row)))
            .collect()
    }
}

/// A cell that cannot move the cursor, and does not push the others off the screen.
fn printable(cell: &str) -> String {
    let mut clean: String = cell
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(COLUMN_MAX)
        .collect();
    if cell.chars().nth(COLUMN_MAX).is_some() {
        clean.pop();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_hold_no_control_characters() {
        let rows = [
            vec!["1".to_owned(), "Größe\u{1b}[2J".to_owned(), "x".to_owned()],
            vec!["22".to_owned(), "b".to_owned(), "y".repeat(70)],
        ];
        let lines = Table::new(&["id", "name", "note"]).with(rows).lines();
        let expected = format!(
            "ID  NAME       NOTE\n1   Größe [2J  x\n22  b          {}…\n",
            "y".repeat(59)
        );
        assert_eq!(lines, expected);
        assert_eq!(Table::new(&["id"]).lines(), "none\n");
    }
}
