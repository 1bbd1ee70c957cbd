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
    /// Several fields of the request are invalid, or refused by a rule: all that [`Faults`] collected.
    #[error("{}", joined(.0))]
    Several(Vec<Error>),
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
    /// A page of the manual.
    ManualPage,
    /// A page of the panel.
    Page,
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
            Self::ManualPage => "page of the manual",
            Self::Page => "page",
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
    /// Additional members of the response, such as `device_limit`; they also fill the placeholders of the text. Boxed to
    /// keep every `Result` small.
    pub members: Box<Map<String, Value>>,
    /// The key of a more specific text than the code's: `[why]` in the language files.
    pub why: Option<&'static str>,
    /// The field that it is about, for forms. Programs do not get it.
    pub field: Option<&'static str>,
}

impl Refused {
    /// A refusal without additional members.
    pub fn new(kind: RefusalKind, code: &'static str) -> Self {
        Self {
            code,
            kind,
            members: Box::default(),
            why: None,
            field: None,
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

    /// The same refusal, which is about this field of a form.
    #[must_use]
    pub fn about(mut self, field: &'static str) -> Self {
        self.field = Some(field);
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
        let field = match &mut self {
            Self::Invalid { field, .. } => Some(field),
            Self::Refused(refused) => refused.field.as_mut(),
            Self::Several(errors) => {
                let errors = std::mem::take(errors).into_iter();
                return Self::Several(errors.map(|one| one.with_field_names(names)).collect());
            }
            _ => None,
        };
        if let Some(field) = field
            && let Some((_, other)) = names.iter().find(|(name, _)| name == field)
        {
            *field = other;
        }
        self
    }

    /// Whether this is a refusal with this code, or contains one.
    pub fn is(&self, code: &str) -> bool {
        match self {
            Self::Refused(refused) => refused.code == code,
            Self::Several(errors) => errors.iter().any(|error| error.is(code)),
            _ => false,
        }
    }

    /// The errors that this consists of, which for most is itself alone.
    pub fn into_each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors,
            one => vec![one],
        }
    }

    /// The same with `change` made to each error that it consists of.
    #[must_use]
    pub fn map_each(self, change: impl Fn(Self) -> Self) -> Self {
        match self {
            Self::Several(errors) => Self::Several(errors.into_iter().map(change).collect()),
            one => change(one),
        }
    }

    /// The field that it is about. Customers and plans that do not exist are in the fields that name them.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::NotFound { what, .. } => match what {
                Resource::Customer => Some("customer"),
                Resource::Plan => Some("plan"),
                _ => None,
            },
            Self::Invalid { field, .. } => Some(field),
            Self::Refused(refused) => refused.field,
            _ => None,
        }
    }

    /// Whether the request may be fine: what is wrong with its fields need not be told then.
    const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Usage(_)
                | Self::State(_)
                | Self::Unavailable { .. }
                | Self::Damaged { .. }
                | Self::Internal { .. }
        )
    }
}

/// What is wrong with a request, in one line.
fn joined(errors: &[Error]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Collects what is wrong with the fields of a request, so that its sender learns all of it at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<Error>);

impl Faults {
    /// Keeps `error`, unless its field has one already.
    pub fn add(&mut self, error: impl Into<Error>) {
        for error in error.into().into_each() {
            let field = error.field();
            if field.is_none_or(|field| !self.has(field)) {
                self.0.push(error);
            }
        }
    }

    /// The value of `checked`. `None` if it is an error, which is kept.
    pub fn keep<T>(&mut self, checked: Result<T>) -> Option<T> {
        checked.map_err(|error| self.add(error)).ok()
    }

    /// Whether the field has an error.
    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|error| error.field() == Some(field))
    }

    /// Fails with everything that was kept: with a failure of the server alone, if there is one.
    ///
    /// # Errors
    /// If anything was kept.
    pub fn finish(self) -> Result<()> {
        let mut errors = self.0;
        if let Some(failure) = errors.iter().position(Error::is_failure) {
            return Err(errors.swap_remove(failure));
        }
        match (errors.pop(), errors.is_empty()) {
            (None, _) => Ok(()),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                errors.push(last);
                Err(Error::Several(errors))
            }
        }
    }

    /// The `outcome` of an operation on the fields whose faults these are. As the last expression of a transaction, it
    /// undoes an operation that succeeds only because a faulty field was replaced.
    ///
    /// # Errors
    /// If anything was kept, or `outcome` is an error.
    pub fn with<T>(mut self, outcome: Result<T>) -> Result<T> {
        let value = self.keep(outcome);
        self.finish()?;
        value.ok_or_else(|| Error::field_fault("form", Fault::Form))
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

    fn refused(code: &'static str) -> Refused {
        Refused::new(RefusalKind::Conflict, code)
    }

    #[test]
    fn all_faults_are_collected_and_the_first_of_each_field() {
        let mut faults = Faults::default();
        assert_eq!(faults.keep(Ok(1)), Some(1));
        let wrong = Err(Error::invalid("a", "is wrong"));
        assert_eq!(faults.keep::<u8>(wrong), None);
        faults.add(Error::invalid("a", "is taken"));
        assert!(faults.has("a") && !faults.has("b"));
        let taken = refused("taken").about("b").into();
        let outcome = faults.with::<u8>(Err(Error::Several(vec![
            taken,
            refused("suspended").into(),
            refused("revoked").into(),
        ])));
        let error = outcome.unwrap_err();
        assert!(error.is("taken") && error.is("revoked") && !error.is("other"));
        let error = error.with_field_names(&[("b", "c")]);
        let fields: Vec<_> = error.into_each().iter().map(Error::field).collect();
        assert_eq!(fields, [Some("a"), Some("c"), None, None]);
    }

    #[test]
    fn a_fault_undoes_what_succeeded_and_a_failure_hides_it() {
        assert_eq!(Faults::default().with(Ok(1)).unwrap(), 1);
        let faulty = || {
            let mut faults = Faults::default();
            faults.add(Error::invalid("a", "is wrong"));
            faults
        };
        assert_eq!(faulty().with(Ok(1)).unwrap_err().field(), Some("a"));
        let busy = Error::Unavailable {
            reason: "full".to_owned(),
        };
        let outcome = faulty().with::<u8>(Err(busy)).unwrap_err();
        assert!(matches!(outcome, Error::Unavailable { .. }));
    }
}
