//! What commands print: a table for people, one JSON document for scripts.

use std::io::{IsTerminal, Read, Write};

use serde_json::Value;

use crate::clock::{Now, TrustedClock};
use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::text as texts;

/// Widest column of a table on a terminal, in characters: the SHA-256 of something fits in. What is not read by
/// people alone is never cut.
const COLUMN_MAX: usize = 64;

/// What a command works with.
pub struct Console {
    /// The file.
    pub db: Db,
    /// The date.
    pub calendar: TrustedClock,
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

/// Whether a list is all that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is.
    Whole,
    /// It ends after so many.
    After(u32),
}

impl Cut {
    /// Cuts a list that was asked for with one row more than it may have.
    pub fn off<T>(rows: &mut Vec<T>, most: u32) -> Self {
        let length = usize::try_from(most).unwrap_or(usize::MAX);
        if rows.len() <= length {
            return Self::Whole;
        }
        rows.truncate(length);
        Self::After(most)
    }
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

    /// [`Console::show`] for a list that was cut, and says so: on standard error for people, who learn by `advice`
    /// how to see the rest, and as `"truncated": true` for scripts.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn show_cut(
        &self,
        mut document: Value,
        table: &Table,
        cut: Cut,
        advice: &str,
    ) -> Result<()> {
        if let Cut::After(shown) = cut {
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

/// Longest input that is looked at, in bytes.
const INPUT_MAX: u64 = 64 * 1024;

/// The first line of standard input, without its end and a byte order mark before it, as text is stored.
///
/// # Errors
/// [`Error::Usage`] when there is none, or it is not in UTF-8.
pub fn first_line_of_input() -> Result<String> {
    let mut input = std::io::BufReader::new(std::io::stdin()).take(INPUT_MAX);
    let mut bytes = Vec::new();
    std::io::BufRead::read_until(&mut input, b'\n', &mut bytes).doing("read standard input")?;
    first_line(bytes)
}

fn first_line(bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).ok();
    // What is written in 16 bits a character has zeros, which no keyboard types.
    let text = text.filter(|text| !text.contains('\0')).ok_or_else(|| {
        Error::Usage("standard input is not in UTF-8: send it as UTF-8 text".to_owned())
    })?;
    let line = texts::without_mark(&text).trim_end_matches(['\r', '\n']);
    let line = texts::composed(line);
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
        let terminal = std::io::stdout().is_terminal();
        text(&self.lines(if terminal { COLUMN_MAX } else { usize::MAX }))
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

/// A cell that cannot move the cursor, and of `max` characters does not push the others off the screen.
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
    fn a_list_is_cut_only_where_there_is_more() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(Cut::off(&mut rows, 3), Cut::Whole);
        assert_eq!(Cut::off(&mut rows, 2), Cut::After(2));
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn tables_line_up_and_hold_no_control_characters() {
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
    fn a_line_of_input_is_the_same_whatever_wrote_it() {
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
