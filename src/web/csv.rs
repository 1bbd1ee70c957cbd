//! CSV export (RFC 4180). Cells are escaped so that no spreadsheet takes one for a formula.

use rocket::http::ContentType;

use super::html::Html;
use crate::config::Language;
use crate::error::{Doing, Result};

/// The byte order mark, by which spreadsheets recognize UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A CSV file that is being written.
pub struct Csv {
    writer: csv::Writer<Vec<u8>>,
    rows: usize,
    is_truncated: bool,
}

impl Csv {
    /// An empty file with the header row `head`. The delimiter is the one that spreadsheets in `language` expect: a
    /// semicolon where the comma is the decimal sign. A `sep=` line would declare it, too, but then spreadsheets
    /// ignore [`BYTE_ORDER_MARK`].
    ///
    /// # Errors
    /// If the header row cannot be written.
    pub fn new(head: &[&str], language: Language) -> Result<Self> {
        let quoted = csv::QuoteStyle::Always;
        let delimiter = match language {
            Language::De => b';',
            Language::En => b',',
        };
        let writer = csv::WriterBuilder::new()
            .quote_style(quoted)
            .delimiter(delimiter)
            .from_writer(BYTE_ORDER_MARK.to_vec());
        let mut csv = Self {
            writer,
            rows: 0,
            is_truncated: false,
        };
        csv.record(head)?;
        Ok(csv)
    }

    /// Appends a row.
    ///
    /// # Errors
    /// If it does not have as many cells as the header row.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) -> Result<()> {
        self.rows += 1;
        self.record(cells)
    }

    fn record<T: AsRef<str>>(&mut self, cells: &[T]) -> Result<()> {
        let escaped = cells.iter().map(|cell| escape_formula(cell.as_ref()));
        self.writer.write_record(escaped).doing("write a table")
    }

    /// Appends a row and returns true; if the file has `max` rows already, leaves the row out, which the file name will
    /// show, and returns false.
    ///
    /// # Errors
    /// As [`Csv::row`].
    pub fn row_up_to<T: AsRef<str>>(&mut self, max: usize, cells: &[T]) -> Result<bool> {
        self.is_truncated = self.rows >= max;
        if !self.is_truncated {
            self.row(cells)?;
        }
        Ok(!self.is_truncated)
    }

    /// The finished file, called `<name>.csv`, or `<name>-first-<rows>.csv` if rows were left out. A remark in the file
    /// itself would be read as a row.
    ///
    /// # Errors
    /// If the file cannot be finished.
    pub fn into_file(self, name: &str) -> Result<Html> {
        let kind = ContentType::new("text", "csv").with_params(("charset", "utf-8"));
        Ok(Html::File {
            name: self.name(name),
            kind: Box::new(kind),
            bytes: self.into_bytes()?,
        })
    }

    fn name(&self, name: &str) -> String {
        if self.is_truncated {
            format!("{name}-first-{}.csv", self.rows)
        } else {
            format!("{name}.csv")
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>> {
        self.writer.into_inner().doing("write a table")
    }
}

/// `cell` with an apostrophe before each character that would begin a formula (OWASP: CSV injection). Some
/// spreadsheets split cells at semicolons and tabs as well, so the text after these is escaped, too.
fn escape_formula(cell: &str) -> String {
    let mut safe = String::with_capacity(cell.len() + 1);
    let mut at_cell_start = true;
    for c in cell.chars() {
        if at_cell_start && matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r') {
            safe.push('\'');
        }
        let is_separator = matches!(c, ';' | ',' | '\t' | '\r' | '\n');
        at_cell_start = is_separator || (at_cell_start && (c == ' ' || c == '"'));
        safe.push(c);
    }
    safe
}

impl std::fmt::Debug for Csv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csv(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_truncated_file_shows_it() {
        for (rows, name) in [(0, "a.csv"), (2, "a.csv"), (3, "a-first-2.csv")] {
            let mut csv = Csv::new(&["n"], Language::En).unwrap();
            for row in 1..=rows {
                let is_written = csv.row_up_to(2, &[row.to_string()]).unwrap();
                assert_eq!(is_written, row <= 2);
            }
            assert_eq!(csv.name("a"), name);
            let text = String::from_utf8(csv.into_bytes().unwrap()).unwrap();
            assert_eq!(text.lines().count(), 1 + rows.min(2));
        }
    }

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        let mut csv = Csv::new(&["name", "note"], Language::En).unwrap();
        for (name, note) in [
            ("Ada, Countess", "says \"yes\"\nand no"),
            ("=1+1", "+49 30"),
            ("-2", "@SUM(A1)"),
            ("\t=1", "\r=1"),
            ("a=b", ""),
            ("PC;=HYPERLINK(1)", "x; \"=1"),
            ("a,b - c", "d\n+e"),
        ] {
            csv.row(&[name, note]).unwrap();
        }
        let text = String::from_utf8(csv.into_bytes().unwrap()).unwrap();
        let expected = [
            "\u{feff}\"name\",\"note\"",
            "\"Ada, Countess\",\"says \"\"yes\"\"",
            "and no\"",
            "\"'=1+1\",\"'+49 30\"",
            "\"'-2\",\"'@SUM(A1)\"",
            "\"'\t'=1\",\"'\r'=1\"",
            "\"a=b\",\"\"",
            "\"PC;'=HYPERLINK(1)\",\"x; \"\"'=1\"",
            "\"a,b - c\",\"d",
            "'+e\"",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn a_german_file_is_separated_by_semicolons() {
        let mut csv = Csv::new(&["name", "note"], Language::De).unwrap();
        csv.row(&["a;b", "c,d"]).unwrap();
        let text = String::from_utf8(csv.into_bytes().unwrap()).unwrap();
        assert_eq!(text, "\u{feff}\"name\";\"note\"\n\"a;b\";\"c,d\"\n");
    }

    #[test]
    fn a_row_of_a_different_length_is_refused() {
        let mut csv = Csv::new(&["name", "note"], Language::De).unwrap();
        assert!(csv.row(&["Ada"]).is_err());
    }
}
