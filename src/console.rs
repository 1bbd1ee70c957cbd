//! Input and output of commands: a table or a line for people, or one JSON document for scripts.

use std::io::{IsTerminal, Read, Write};

use serde_json::Value;

use crate::clock::{Now, TrustedClock};
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::text as texts;

/// Maximum width of a table column on a terminal, in characters: the length of a SHA-256 digest in hex. Output that
/// does not go to a terminal is not truncated.
const COLUMN_MAX: usize = 64;

/// The environment of a command.
pub struct Console {
    /// The database.
    pub db: Db,
    /// The clock.
    pub trusted_clock: TrustedClock,
    /// The name of the operating system's user, for the audit log.
    pub user: String,
    /// How many days both domains of a transfer are served.
    pub transfer_grace_days: u32,
    /// How results are printed.
    pub output: OutputFormat,
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// A table or a line for people.
    Text,
    /// One document for scripts.
    Json,
}

/// A table for people, in columns with a header.
pub struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

/// Whether a list was truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It is complete.
    Complete,
    /// It was truncated to this many rows.
    After(u32),
}

impl Extent {
    /// Truncates `rows` to `max`. For a query that selects one row more than it may return.
    pub fn truncate<T>(rows: &mut Vec<T>, max: u32) -> Self {
        let length = usize::try_from(max).unwrap_or(usize::MAX);
        if rows.len() <= length {
            return Self::Complete;
        }
        rows.truncate(length);
        Self::After(max)
    }
}

impl Console {
    /// The current time.
    pub fn now(&self) -> Now {
        self.trusted_clock.now()
    }

    /// Prints `document` as JSON, or `table` for people.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn show(&self, document: &Value, table: &Table) -> Result<()> {
        match self.output {
            OutputFormat::Json => json(document),
            OutputFormat::Text => table.print(),
        }
    }

    /// As [`Console::show`], for a list that may have been truncated. If so, says so on standard error, followed by
    /// `advice` on how to see the rest, and adds `"truncated": true` to the JSON.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn show_list(
        &self,
        mut document: Value,
        table: &Table,
        cut: Extent,
        advice: &str,
    ) -> Result<()> {
        if let Extent::After(shown) = cut {
            message(&format!(
                "license-server: only the first {shown} are listed, there are more: {advice}"
            ));
            if let Some(members) = document.as_object_mut() {
                members.insert("truncated".to_owned(), true.into());
            }
        }
        self.show(&document, table)
    }

    /// Prints `document` as JSON, or one line for people.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn show_line(&self, document: &Value, line: &str) -> Result<()> {
        match self.output {
            OutputFormat::Json => json(document),
            OutputFormat::Text => text(&format!("{line}\n")),
        }
    }
}

/// The usage error of a command that changes what its options name, without an option.
pub const NOTHING_TO_CHANGE: &str = "nothing to change: name an option, see --help";

/// Prints one JSON document.
///
/// # Errors
/// If standard output cannot be written.
pub fn json(document: &Value) -> Result<()> {
    text(&format!("{document:#}\n"))
}

/// Prints `text` as it is. A closed pipe is not an error, so that `| head` works.
///
/// # Errors
/// If standard output cannot be written.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.doing("print"),
    }
}

/// Prints a line on standard error. It is a message, not a result, so errors are ignored.
pub fn message(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Maximum length of the input that is read, in bytes.
const INPUT_MAX: u64 = 64 * 1024;

/// The first line of standard input, without its line end and a byte order mark, in Unicode normal form C.
///
/// # Errors
/// [`Error::Usage`] if it is empty or not UTF-8.
pub fn first_line_of_input() -> Result<String> {
    let mut input = std::io::BufReader::new(std::io::stdin()).take(INPUT_MAX);
    let mut bytes = Vec::new();
    std::io::BufRead::read_until(&mut input, b'\n', &mut bytes).doing("read standard input")?;
    first_line(bytes)
}

fn first_line(bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).ok();
    // UTF-16 text contains zeros, and typed text does not.
    let text = text.filter(|text| !text.contains('\0')).ok_or_else(|| {
        Error::Usage("standard input is not in UTF-8: send it as UTF-8 text".to_owned())
    })?;
    let line = texts::without_bom(&text).trim_end_matches(['\r', '\n']);
    let line = texts::to_nfc(line);
    if line.is_empty() {
        return Err(Error::Usage("standard input is empty".to_owned()));
    }
    Ok(line)
}

impl Table {
    /// A table with this header and no rows.
    pub fn new(head: &'static [&'static str]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    /// Appends `rows`.
    #[must_use]
    pub fn with(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    fn print(&self) -> Result<()> {
        let is_terminal = std::io::stdout().is_terminal();
        text(&self.lines(if is_terminal { COLUMN_MAX } else { usize::MAX }))
    }

    fn lines(&self, column_max: usize) -> String {
        if self.rows.is_empty() {
            return "none\n".to_owned();
        }
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| printable(cell, column_max)).collect())
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

/// `cell` without control characters, which could move the cursor, and truncated to `max` characters.
fn printable(cell: &str, max: usize) -> String {
    let mut clean: String = cell
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(max)
        .collect();
    if cell.chars().nth(max).is_some() {
        clean.pop();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_truncated_only_if_it_is_longer() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(Extent::truncate(&mut rows, 3), Extent::Complete);
        assert_eq!(Extent::truncate(&mut rows, 2), Extent::After(2));
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn table_columns_are_aligned_and_contain_no_control_characters() {
        let rows = [
            vec!["1".to_owned(), "Größe\u{1b}[2J".to_owned(), "x".to_owned()],
            vec!["22".to_owned(), "b".to_owned(), "y".repeat(70)],
        ];
        let lines = Table::new(&["id", "name", "note"])
            .with(rows.clone())
            .lines(64);
        let expected = format!(
            "ID  NAME       NOTE\n1   Größe [2J  x\n22  b          {}…\n",
            "y".repeat(63)
        );
        assert_eq!(lines, expected);
        let whole = Table::new(&["id", "name", "note"])
            .with(rows)
            .lines(usize::MAX);
        assert!(whole.contains(&"y".repeat(70)), "{whole}");
        assert_eq!(Table::new(&["id"]).lines(64), "none\n");
    }

    #[test]
    fn a_line_of_input_is_the_same_from_any_program() {
        for bytes in [
            "M\u{fc}ller".as_bytes(),
            b"M\xc3\xbcller\n",
            b"M\xc3\xbcller\r\n",
            b"\xef\xbb\xbfM\xc3\xbcller\r\n",
            "Mu\u{308}ller\n".as_bytes(),
        ] {
            assert_eq!(
                first_line(bytes.to_vec()).unwrap(),
                "M\u{fc}ller",
                "{bytes:?}"
            );
        }
        for bytes in [
            &b""[..],
            b"\n",
            b"\xef\xbb\xbf\r\n",
            b"M\xfcller\n",
            b"\xff\xfea\0\n",
            b"a\0b\0\n",
        ] {
            assert!(first_line(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }
}
