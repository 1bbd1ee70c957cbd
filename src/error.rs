//! The crate's error type. The HTTP status is chosen later, in `web::reply`, the exit status in `main`.

use serde_json::{Map, Value};

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal that the caller can act on, or a failure that the operator must look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule refused the request. The same request may work later.
    #[error("refused: {}", .0.code)]
    Refused(Refused),
    /// The request is invalid and can never work.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's name in the request.
        field: &'static str,
        /// What is wrong with it, in English, as the rest of a sentence: "is missing".
        problem: String,
        /// The kind of problem, for a message in the reader's language.
        fault: Fault,
    },
    /// The thing does not exist; for operators and administrators.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// The kind of thing.
        what: Resource,
        /// The name or id that was looked up.
        name: String,
    },
    /// The command line, or the settings, are wrong.
    #[error("{0}")]
    Usage(String),
    /// The machine is not in the state that the command needs; the text says what to do.
    #[error("{0}")]
    State(String),
    /// The database cannot be used now: the queue is full, the disk is full, the server is stopping.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// The reason, for the log.
        reason: String,
    },
    /// Data in the database cannot be read back: the file or the disk is damaged.
    #[error("the database is damaged: {found}")]
    Damaged {
        /// SQLite's message, for the log.
        found: String,
    },
    /// A fault of the server. Logged in full, never sent to a client.
    #[error("failed to {doing}: {source}")]
    Internal {
        /// What the server was doing, as a verb: "start a session".
        doing: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The kind of a thing that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An administrator.
    Administrator,
    /// A backup.
    Backup,
    /// A certificate.
    Certificate,
    /// The authority that signs the server's own certificate.
    CertificateAuthority,
    /// A customer.
    Customer,
    /// A device.
    Device,
    /// A domain.
    Domain,
    /// A feature flag.
    FeatureFlag,
    /// A license.
    License,
    /// A license, looked up by its key.
    LicenseWithKey,
    /// A plan.
    Plan,
    /// A product.
    Product,
    /// A group of rate limits.
    RateLimit,
    /// A release.
    Release,
    /// A session that runs.
    RunningSession,
    /// A filter of a list that an administrator saved.
    SavedFilter,
    /// A session, whether it runs or has ended.
    Session,
    /// The set-up link of the first start.
    SetUp,
    /// A signing key.
    SigningKey,
    /// A template of a page.
    Template,
    /// A text in a language file.
    Text,
    /// A language file.
    TextFile,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Administrator => "administrator",
            Self::Backup => "backup",
            Self::Certificate => "certificate",
            Self::CertificateAuthority => "certificate authority",
            Self::Customer => "customer",
            Self::Device => "device",
            Self::Domain => "domain",
            Self::FeatureFlag => "feature flag",
            Self::License => "license",
            Self::LicenseWithKey => "license with the key",
            Self::Plan => "plan",
            Self::Product => "product",
            Self::RateLimit => "rate limit",
            Self::Release => "release",
            Self::RunningSession => "running session",
            Self::SavedFilter => "saved filter",
            Self::Session => "session",
            Self::SetUp => "set-up",
            Self::SigningKey => "signing key",
            Self::Template => "template",
            Self::Text => "text",
            Self::TextFile => "text file",
        })
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is missing.
    Missing,
    /// It is not a string but a number, a list, null, …
    NotText,
    /// It is empty.
    Empty,
    /// It has more characters than this limit.
    TooLong(usize),
    /// It contains a control character.
    Control,
    /// It is not UTF-8.
    Encoding,
    /// It has the wrong format in another way.
    Form,
}

impl Fault {
    /// All kinds, for tests of the texts.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::NotText,
        Self::Empty,
        Self::TooLong(1),
        Self::Control,
        Self::Encoding,
        Self::Form,
    ];

    /// The key of its text in the language files.
    pub const fn as_str(self) -> &'static str {
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

/// The kind of a refusal. `web` makes the HTTP status from it, `main` the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request cannot be read.
    Malformed,
    /// The caller is unknown: no login, or a wrong password or API key.
    Unauthorized,
    /// The caller is known, but the license, its version or its role does not allow it.
    Forbidden,
    /// The thing does not exist.
    NotFound,
    /// The present state does not allow it.
    Conflict,
    /// Several things have the given name. The same command always fails, until it names one of them.
    Ambiguous,
    /// The thing existed, and has ended.
    Gone,
    /// The request is too large.
    TooLarge,
    /// The body has a media type that is not accepted.
    UnsupportedMediaType,
    /// A field has an invalid value.
    Invalid,
    /// The caller makes too many requests.
    TooMany,
    /// The server cannot do it now.
    Unavailable,
    /// A fault of the server.
    Internal,
}

impl RefusalKind {
    /// All kinds, for tests.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Ambiguous,
        Self::Gone,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::TooMany,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// The code of the refusal to overwrite something that was changed after the caller read it.
pub const CHANGED_MEANWHILE: &str = "changed_meanwhile";

/// A refusal as the caller gets it: its stable code and additional members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code that programs match on, such as `session_active`; it never changes.
    pub code: &'static str,
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// Additional members of the response, such as `device_limit`; they also fill the placeholders of the text.
    pub members: Map<String, Value>,
    /// The key of a more specific text than the code's: `[why]` in the language files.
    pub why: Option<&'static str>,
}

impl Refused {
    /// A refusal without additional members.
    pub fn new(kind: RefusalKind, code: &'static str) -> Self {
        let (members, why) = (Map::new(), None);
        Self {
            code,
            kind,
            members,
            why,
        }
    }

    /// The refusal to overwrite something that was changed after the caller read it.
    pub fn changed_meanwhile() -> Self {
        Self::new(RefusalKind::Conflict, CHANGED_MEANWHILE)
    }

    /// The same refusal with a more specific text.
    #[must_use]
    pub fn with_text_key(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }

    /// The same refusal with one more member in its response.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }
}

impl Error {
    /// A field with the wrong format.
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        let (problem, fault) = (problem.into(), Fault::Form);
        Self::Invalid {
            field,
            problem,
            fault,
        }
    }

    /// A field with one of the general problems.
    pub fn field_fault(field: &'static str, fault: Fault) -> Self {
        let problem = fault.problem();
        Self::Invalid {
            field,
            problem,
            fault,
        }
    }

    /// A thing that was looked up by `name` and does not exist.
    pub fn not_found(what: Resource, name: impl ToString) -> Self {
        let name = name.to_string();
        Self::NotFound { what, name }
    }
}

impl Error {
    /// The same error for a form or command that calls some fields by other names; pairs of the name and the other.
    #[must_use]
    pub fn with_field_names(mut self, names: &[(&str, &'static str)]) -> Self {
        if let Self::Invalid { field, .. } = &mut self
            && let Some((_, other)) = names.iter().find(|(name, _)| name == field)
        {
            *field = other;
        }
        self
    }

    /// Whether this is a refusal with this code.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused(refused) if refused.code == code)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Adds to an error what the server was doing.
pub trait Doing<T> {
    /// Wraps the error as [`Error::Internal`]. `verb` completes "failed to …".
    ///
    /// # Errors
    /// If `self` is an error.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_are_called_otherwise_get_another_name() {
        let names = [("device_limit", "devices"), ("name", "customer")];
        for (field, shown) in [("device_limit", "devices"), ("note", "note")] {
            let error = Error::invalid(field, "is wrong").with_field_names(&names);
            assert_eq!(error.to_string(), format!("{shown}: is wrong"));
        }
        let missing = Error::not_found(Resource::Customer, "Ada").with_field_names(&names);
        assert!(matches!(missing, Error::NotFound { .. }));
    }
}
