//! Input and output of commands: a table or a line for people, or one JSON document for scripts.

use std::io::{self, BufWriter, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
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

/// A list as a command prints it.
pub struct List<'a, T> {
    /// The product that the JSON document names, if the list belongs to one.
    pub product: Option<&'a str>,
    /// The name of the list in the JSON document.
    pub name: &'static str,
    /// Its rows.
    pub rows: &'a [T],
    /// A row in the JSON document.
    pub document: &'a dyn Fn(&T) -> Value,
    /// The header of the table.
    pub head: &'static [&'static str],
    /// A row of the table.
    pub cells: &'a dyn Fn(&T) -> Vec<String>,
    /// Whether it was truncated.
    pub cut: Extent,
    /// How to see the rest.
    pub advice: &'a str,
}

impl<T> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        if let Some(product) = self.product {
            members.serialize_entry("product", product)?;
        }
        members.serialize_entry(self.name, &Documents(self))?;
        if self.cut != Extent::Complete {
            members.serialize_entry("truncated", &true)?;
        }
        members.end()
    }
}

/// The rows of a list in its JSON document.
struct Documents<'a, T>(&'a List<'a, T>);

impl<T> Serialize for Documents<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.rows.iter().map(self.0.document))
    }
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

    /// As [`Console::show`], for a list that may have been truncated. If so, says so on standard error, followed by its
    /// advice on how to see the rest, and adds `"truncated": true` to the JSON. Each row becomes JSON or text only when it
    /// is printed, since a list may have 100,000 of them.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn show_list<T>(&self, list: &List<'_, T>) -> Result<()> {
        if let Extent::After(shown) = list.cut {
            message(&format!(
                "license-server: only the first {shown} are listed, there are more: {}",
                list.advice
            ));
        }
        write_out(|out| match self.output {
            OutputFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, list)?;
                writeln!(out)
            }
            OutputFormat::Text => {
                write_table(out, (list.head, list.rows), list.cells, column_max())
            }
        })
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
    write_out(|out| out.write_all(text.as_bytes()))
}

/// Writes to standard output. A closed pipe is not an error.
fn write_out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
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
    // The standard library's own buffer keeps what follows for the next call.
    let mut input = std::io::stdin().lock().take(INPUT_MAX);
    let mut bytes = Vec::new();
    std::io::BufRead::read_until(&mut input, b'\n', &mut bytes).doing("read standard input")?;
    first_line(bytes)
}

/// Whether `password` may be asked for: standard input is a terminal, so a person types.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// A new password that a person types twice at the terminal, without seeing it.
///
/// # Errors
/// [`Error::Usage`] if it is empty, or if the two differ.
pub fn new_password(whose: &str) -> Result<String> {
    // Before the first question, and for both: what is typed early is neither shown nor lost.
    let _hidden = HiddenInput::begin()?;
    let first = hidden_line(&format!("New password of {whose}: "))?;
    if first != hidden_line("The same again: ")? {
        return Err(Error::Usage(
            "the two passwords differ: nothing was changed; run the command again".to_owned(),
        ));
    }
    Ok(first)
}

/// A line that is typed at the terminal while its input is hidden.
fn hidden_line(prompt: &str) -> Result<String> {
    drop(write!(io::stderr().lock(), "{prompt}"));
    let line = first_line_of_input();
    // The line end that was typed was not shown either.
    message("");
    line
}

/// While this exists, the terminal does not show what is typed.
struct HiddenInput(Termios);

impl HiddenInput {
    /// Discards what was typed before, since it was shown.
    fn begin() -> Result<Self> {
        let usual = tcgetattr(io::stdin()).doing("read the state of the terminal")?;
        let mut hidden = usual.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).doing("hide the input")?;
        Ok(Self(usual))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0) {
            log::debug!("the terminal does not show input again: {error}");
        }
    }
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
        write_out(|out| self.write(out, column_max()))
    }

    fn write(&self, out: &mut dyn Write, column_max: usize) -> io::Result<()> {
        write_table(out, (self.head, &self.rows), &Vec::clone, column_max)
    }
}

/// How wide a column may be.
fn column_max() -> usize {
    if io::stdout().is_terminal() {
        COLUMN_MAX
    } else {
        usize::MAX
    }
}

/// Writes a table. The cells of each row are made twice, for the widths of the columns and for the row, and not kept.
fn write_table<T>(
    out: &mut dyn Write,
    (head, rows): (&[&str], &[T]),
    cells: &dyn Fn(&T) -> Vec<String>,
    column_max: usize,
) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "none");
    }
    let shown = |row: &T| -> Vec<String> {
        let cells = cells(row).into_iter();
        cells.map(|cell| printable(&cell, column_max)).collect()
    };
    let mut widths: Vec<usize> = head.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(shown(row)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths);
        let padded = padded.map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head: Vec<String> = head.iter().map(|name| (*name).to_uppercase()).collect();
    out.write_all(line(&head).as_bytes())?;
    for row in rows {
        out.write_all(line(&shown(row)).as_bytes())?;
    }
    Ok(())
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_truncated_only_if_it_is_longer() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(Extent::truncate(&mut rows, 3), Extent::Complete);
        assert_eq!(Extent::truncate(&mut rows, 2), Extent::After(2));
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn a_list_is_one_document_and_says_whether_it_was_truncated() {
        for (rows, cut, expected) in [
            (
                &[1, 2][..],
                Extent::Complete,
                json!({ "numbers": [{ "n": 1 }, { "n": 2 }] }),
            ),
            (&[], Extent::Complete, json!({ "numbers": [] })),
            (
                &[7],
                Extent::After(1),
                json!({ "numbers": [{ "n": 7 }], "truncated": true }),
            ),
        ] {
            let list = List {
                product: None,
                name: "numbers",
                rows,
                document: &|n| json!({ "n": n }),
                head: &["n"],
                cells: &|n: &i32| vec![n.to_string()],
                cut,
                advice: "",
            };
            let printed = serde_json::to_string_pretty(&list).unwrap();
            assert_eq!(printed, format!("{expected:#}"));
        }
    }

    #[test]
    fn table_columns_are_aligned_and_contain_no_control_characters() {
        let rows = [
            vec!["1".to_owned(), "Größe\u{1b}[2J".to_owned(), "x".to_owned()],
            vec!["22".to_owned(), "b".to_owned(), "y".repeat(70)],
        ];
        let lines = |table: Table, column_max| {
            let mut out = Vec::new();
            table.write(&mut out, column_max).unwrap();
            String::from_utf8(out).unwrap()
        };
        let table = || Table::new(&["id", "name", "note"]).with(rows.clone());
        let expected = format!(
            "ID  NAME       NOTE\n1   Größe [2J  x\n22  b          {}…\n",
            "y".repeat(63)
        );
        assert_eq!(lines(table(), 64), expected);
        let whole = lines(table(), usize::MAX);
        assert!(whole.contains(&"y".repeat(70)), "{whole}");
        assert_eq!(lines(Table::new(&["id"]), 64), "none\n");
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
