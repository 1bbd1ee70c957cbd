//! What can go wrong, in the words of the house. The HTTP status is chosen later, in `web::reply`,
//! the exit status in `main`.

use serde_json::{Map, Value};

/// The result of everything that can go wrong.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal the caller can act on, or a failure the operator must look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule said no. The same request may work later.
    #[error("refused: {}", .0.code)]
    Refused(Refused),
    /// The caller sent something that can never work.
    #[error("{field}: {problem}")]
    Invalid {
        /// Name of the field as the caller sent it.
        field: &'static str,
        /// What is wrong with it, in English.
        problem: String,
        /// The same as one of few kinds, for a sentence in the caller's language.
        fault: Fault,
    },
    /// No such thing, for an operator or an administrator.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// The kind of thing, in the singular.
        what: &'static str,
        /// What was looked for.
        name: String,
    },
    /// The words of a command, or the settings, cannot be obeyed as they are.
    #[error("{0}")]
    Usage(String),
    /// The operator's machine is not in the state that the command needs; the text says what to do.
    #[error("{0}")]
    State(String),
    /// The write cannot be taken now: the queue is full, the disk is full, the server stops.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why, for the log.
        reason: String,
    },
    /// The database, or the disk under it, does not give back what was written.
    #[error("the database is damaged: {found}")]
    Damaged {
        /// What SQLite says of it, for the log.
        found: String,
    },
    /// Our fault. Logged whole, shown to nobody outside.
    #[error("failed to {doing}: {source}")]
    Internal {
        /// What we were doing, as a verb: "start a session".
        doing: &'static str,
        /// What it came from.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// In which way a field is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is a number, a list, null: anything but a text.
    NotText,
    /// Nothing is in it.
    Empty,
    /// It has more characters than this.
    TooLong(usize),
    /// A control character is in it.
    Control,
    /// It is not in UTF-8.
    Encoding,
    /// It is not of its form in another way.
    Form,
}

impl Fault {
    /// Every kind, for tests of the texts.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::NotText,
        Self::Empty,
        Self::TooLong(1),
        Self::Control,
        Self::Encoding,
        Self::Form,
    ];

    /// The word that its text is found by.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotText => "not_text",
            Self::Empty => "empty",
            Self::TooLong(_) => "too_long",
            Self::Control => "control",
            Self::Encoding => "encoding",
            Self::Form => "form",
        }
    }

    fn problem(self) -> String {
        match self {
            Self::Missing => "is missing".to_owned(),
            Self::NotText => "must be a text".to_owned(),
            Self::Empty => "is empty".to_owned(),
            Self::TooLong(max) => format!("is longer than {max} characters"),
            Self::Control => "holds a control character".to_owned(),
            Self::Encoding => "is not in UTF-8".to_owned(),
            Self::Form => "is not of its form".to_owned(),
        }
    }
}

/// The code of a change to something that somebody else has changed since the caller looked.
pub const CHANGED_MEANWHILE: &str = "changed_meanwhile";

/// A refusal on its way to the caller: its stable word, and what else he may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The word programs match on, such as `session_active`; it never changes.
    pub code: &'static str,
    /// Extra members of the answer, such as `device_limit`; they also fill the placeholders of the text.
    pub members: Map<String, Value>,
    /// Names a sentence that says more than the one of the code: `[why]` in the texts.
    pub why: Option<&'static str>,
}

impl Refused {
    /// A refusal that has nothing to add to its code.
    pub fn plain(code: &'static str) -> Self {
        let (members, why) = (Map::new(), None);
        Self { code, members, why }
    }

    /// The same refusal with a sentence that says more than the one of the code.
    #[must_use]
    pub fn because(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }

    /// The same refusal with one more member in its answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }
}

impl Error {
    /// A field that is not of its form.
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        let (problem, fault) = (problem.into(), Fault::Form);
        Self::Invalid {
            field,
            problem,
            fault,
        }
    }

    /// A field that is wrong in one of the ways in which any field can be.
    pub fn faulty(field: &'static str, fault: Fault) -> Self {
        let problem = fault.problem();
        Self::Invalid {
            field,
            problem,
            fault,
        }
    }

    /// A thing that was asked for by `name` and is not there.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        let name = name.to_string();
        Self::NotFound { what, name }
    }
}

impl Error {
    /// Whether this is the refusal `code`.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused(refused) if refused.code == code)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Says what we were doing when something below us failed.
pub trait Doing<T> {
    /// Wraps the failure as [`Error::Internal`]. `verb` completes "failed to …".
    ///
    /// # Errors
    /// Whenever `self` is one.
    fn doing(self, verb: &'static str) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, verb: &'static str) -> Result<T> {
        self.map_err(|source| Error::Internal {
            doing: verb,
            source: source.into(),
        })
    }
}
