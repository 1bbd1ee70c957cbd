//! Tables to keep: CSV as RFC 4180 has it, in which no cell is a formula to whoever opens it.

use rocket::http::ContentType;

use super::html::Html;
use crate::config::Language;
use crate::error::{Doing, Result};

/// Tells spreadsheets that the text is UTF-8 (the byte order mark of Unicode).
const MARK: &[u8] = "\u{feff}".as_bytes();

/// A table that is being written.
pub struct Csv {
    writer: csv::Writer<Vec<u8>>,
    rows: usize,
    is_cut: bool,
}

impl Csv {
    /// A table with this head, as spreadsheets of `language` open it: where the comma is the decimal sign, the
    /// semicolon ends a cell. A line `sep=` would say so too, but then they ignore [`MARK`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(head: &[&str], language: Language) -> Result<Self> {
        let quoted = csv::QuoteStyle::Always;
        let delimiter = match language {
            Language::De => b';',
            Language::En => b',',
        };
        let writer = csv::WriterBuilder::new()
            .quote_style(quoted)
            .delimiter(delimiter)
            .from_writer(MARK.to_vec());
        let mut sheet = Self {
            writer,
            rows: 0,
            is_cut: false,
        };
        sheet.record(head)?;
        Ok(sheet)
    }

    /// One more row, of as many cells as the head.
    ///
    /// # Errors
    /// When it is of another number of cells.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) -> Result<()> {
        self.rows += 1;
        self.record(cells)
    }

    fn record<T: AsRef<str>>(&mut self, cells: &[T]) -> Result<()> {
        let escape_formula = cells.iter().map(|cell| escape_formula(cell.as_ref()));
        self.writer
            .write_record(escape_formula)
            .doing("write a table")
    }

    /// One more row as long as there are at most `max`. Beyond them it is left out, and the name of the file says so;
    /// false then.
    ///
    /// # Errors
    /// As [`Csv::row`].
    pub fn row_up_to<T: AsRef<str>>(&mut self, max: usize, cells: &[T]) -> Result<bool> {
        self.is_cut = self.rows >= max;
        if !self.is_cut {
            self.row(cells)?;
        }
        Ok(!self.is_cut)
    }

    /// The file `<name>.csv` with all of it, or, where it was cut, `<name>-first-<rows>.csv`: a line of its own at the
    /// end would be taken for a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(self, name: &str) -> Result<Html> {
        let kind = ContentType::new("text", "csv").with_params(("charset", "utf-8"));
        Ok(Html::File {
            name: self.name(name),
            kind: Box::new(kind),
            bytes: self.bytes()?,
        })
    }

    fn name(&self, name: &str) -> String {
        if self.is_cut {
            format!("{name}-first-{}.csv", self.rows)
        } else {
            format!("{name}.csv")
        }
    }

    fn bytes(self) -> Result<Vec<u8>> {
        self.writer.into_inner().doing("write a table")
    }
}

/// A cell that a spreadsheet shows and does not calculate (OWASP: CSV injection). Some take semicolons and
/// tabs for the end of a cell: what stands behind one begins a cell to them.
fn escape_formula(cell: &str) -> String {
    let mut safe = String::with_capacity(cell.len() + 1);
    let mut begins = true;
    for c in cell.chars() {
        if begins && matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r') {
            safe.push('\'');
        }
        let between = matches!(c, ';' | ',' | '\t' | '\r' | '\n');
        begins = between || (begins && (c == ' ' || c == '"'));
        safe.push(c);
    }
    safe
}

impl std::fmt::Debug for Csv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sheet(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_cut_says_so_by_its_name() {
        for (rows, name) in [(0, "a.csv"), (2, "a.csv"), (3, "a-first-2.csv")] {
            let mut sheet = Csv::new(&["n"], Language::En).unwrap();
            for row in 1..=rows {
                let taken = sheet.row_up_to(2, &[row.to_string()]).unwrap();
                assert_eq!(taken, row <= 2);
            }
            assert_eq!(sheet.name("a"), name);
            let text = String::from_utf8(sheet.bytes().unwrap()).unwrap();
            assert_eq!(text.lines().count(), 1 + rows.min(2));
        }
    }

    #[test]
    fn cells_are_quoted_and_are_never_formulas() {
        let mut sheet = Csv::new(&["name", "note"], Language::En).unwrap();
        for (name, note) in [
            ("Ada, Countess", "says \"yes\"\nand no"),
            ("=1+1", "+49 30"),
            ("-2", "@SUM(A1)"),
            ("\t=1", "\r=1"),
            ("a=b", ""),
            ("PC;=HYPERLINK(1)", "x; \"=1"),
            ("a,b - c", "d\n+e"),
        ] {
            sheet.row(&[name, note]).unwrap();
        }
        let text = String::from_utf8(sheet.bytes().unwrap()).unwrap();
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
    fn a_german_table_has_semicolons() {
        let mut sheet = Csv::new(&["name", "note"], Language::De).unwrap();
        sheet.row(&["a;b", "c,d"]).unwrap();
        let text = String::from_utf8(sheet.bytes().unwrap()).unwrap();
        assert_eq!(text, "\u{feff}\"name\";\"note\"\n\"a;b\";\"c,d\"\n");
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let mut sheet = Csv::new(&["name", "note"], Language::De).unwrap();
        assert!(sheet.row(&["Ada"]).is_err());
    }
}
