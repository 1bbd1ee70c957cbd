//! What an administrator may be called and may do.

use std::time::Duration;

use super::{Role, Session, Stage};
use crate::clock::UnixMs;
use crate::error::{Error, Refused, Result};

/// Longest name, in characters.
const NAME_MAX: usize = 64;
/// How long a password or second factor that was just given stands for the person: final deeds ask again
/// after it.
const PROOF: Duration = Duration::from_mins(5);

impl Role {
    /// Every role, the mightiest first.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Support];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Support => "support",
        }
    }

    /// The role of a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn of_word(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| Error::invalid("role", "must be owner, admin or support"))
    }

    /// Whether this role may do what `other` may do.
    pub const fn includes(self, other: Self) -> bool {
        self.rank() >= other.rank()
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Support => 0,
            Self::Admin => 1,
            Self::Owner => 2,
        }
    }
}

/// How long a login lasts.
#[derive(Clone, Copy, Debug)]
pub struct Lasting {
    /// From the login on.
    pub whole: Duration,
    /// From the last request on.
    pub idle: Duration,
}

/// Whether a login still lasts at `now`.
pub(super) fn lasts(session: &Session, lasting: Lasting, now: UnixMs) -> bool {
    now < session.created_at.plus(lasting.whole) && now < session.seen_at.plus(lasting.idle)
}

/// Whether the person gave a password or second factor lately.
pub(super) fn proved_lately(proved_at: UnixMs, now: UnixMs) -> bool {
    now < proved_at.plus(PROOF)
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no login, or it is over.
    NotLoggedIn,
    /// The role does not allow it.
    Forbidden,
    /// No such name, or another password: which of them is not told.
    WrongPassword,
    /// Another code, or one that has served.
    WrongCode,
    /// The last owner cannot go: nobody could let another one in.
    LastOwner,
    /// There is somebody of this name.
    NameTaken,
}

impl Refusal {
    /// The word for it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not_logged_in",
            Self::Forbidden => "forbidden",
            Self::WrongPassword => "wrong_password",
            Self::WrongCode => "wrong_code",
            Self::LastOwner => "last_owner",
            Self::NameTaken => "name_taken",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::plain(refusal.code())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Refuses a name that cannot be typed or told apart: 1 to 64 printable characters without spaces.
pub(super) fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    let printable = |c: char| !c.is_control() && !c.is_whitespace();
    if (1..=NAME_MAX).contains(&length) && name.chars().all(printable) {
        return Ok(());
    }
    let problem = format!("must be 1..{NAME_MAX} printable characters without spaces");
    Err(Error::invalid("name", problem))
}

/// Refuses a stage or role that does not suffice.
pub(super) fn admit(session: &Session, role: Role, wanted: Role) -> Result<(), Refusal> {
    if session.stage != Stage::Full {
        return Err(Refusal::NotLoggedIn);
    }
    if role.includes(wanted) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_the_ones_below_it_only() {
        for (has, wants, may) in [
            (Role::Owner, Role::Owner, true),
            (Role::Owner, Role::Support, true),
            (Role::Admin, Role::Owner, false),
            (Role::Admin, Role::Admin, true),
            (Role::Admin, Role::Support, true),
            (Role::Support, Role::Admin, false),
            (Role::Support, Role::Support, true),
        ] {
            assert_eq!(has.includes(wants), may, "{has:?} {wants:?}");
        }
    }

    #[test]
    fn names_can_be_typed_and_told_apart() {
        for (name, good) in [
            ("w@rh@mm3r", true),
            ("käthe", true),
            ("", false),
            ("a b", false),
            ("a\u{a0}b", false),
            ("a\tb", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        assert!(check_name(&"ä".repeat(64)).is_ok());
        assert!(check_name(&"ä".repeat(65)).is_err());
    }
}
