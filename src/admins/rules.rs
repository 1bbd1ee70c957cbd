//! Rules for administrators: names and roles.

use unicode_security::{RestrictionLevel, RestrictionLevelDetection, skeleton};

use super::Role;
use crate::audit::Actor;
use crate::error::{Error, RefusalKind, Refused, Result};

/// Longest name, in characters.
const NAME_MAX: usize = 64;
impl Role {
    /// Every role, most privileged first.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Support];

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Support => "support",
        }
    }

    /// Parses a role.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn parse(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| Error::invalid("role", "must be owner, admin or support"))
    }

    /// Whether this role may do everything that `other` may do.
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

/// Why a change of an account is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The last owner cannot be removed or demoted: no account could add another owner.
    LastOwner,
    /// Another administrator has this name.
    NameTaken,
    /// The name is, or looks like, an actor of the audit log that is no administrator.
    NameReserved,
    /// The name looks like that of another administrator.
    NameConfusable,
    /// Administrators cannot change their own role.
    OwnRole,
    /// Administrators cannot remove their own account.
    OwnAccount,
}

impl Refusal {
    /// The code in responses; never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LastOwner => "last_owner",
            Self::NameTaken => "name_taken",
            Self::NameReserved => "name_reserved",
            Self::NameConfusable => "name_confusable",
            Self::OwnRole => "own_role",
            Self::OwnAccount => "own_account",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::LastOwner
            | Self::NameTaken
            | Self::NameConfusable
            | Self::OwnRole
            | Self::OwnAccount => RefusalKind::Conflict,
            Self::NameReserved => RefusalKind::Invalid,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let refused = Self::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::NameTaken | Refusal::NameReserved | Refusal::NameConfusable => {
                refused.about("name")
            }
            _ => refused,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Rejects a name that is hard to type or to distinguish, and one that looks like another actor of the audit log.
/// Allowed are 1 to 64 letters of one script, digits and punctuation marks, without spaces.
///
/// # Errors
/// [`Error::Invalid`] for the name, [`Refusal::NameReserved`].
pub fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    let printable = |c: char| !c.is_control() && !c.is_whitespace();
    // UTS 39 excludes zero-width characters, direction marks, symbols and historic scripts, and allows mixed scripts
    // only as Japanese uses them. ASCII punctuation is allowed, since it occurs in mail addresses.
    let letters: String = name.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let one_script = letters.check_restriction_level(RestrictionLevel::HighlyRestrictive);
    if !(1..=NAME_MAX).contains(&length) || !name.chars().all(printable) || !one_script {
        let problem =
            format!("must be 1..{NAME_MAX} letters of one script, digits and signs without spaces");
        return Err(Error::invalid("name", problem));
    }
    if is_reserved(name) {
        Err(Refusal::NameReserved.into())
    } else {
        Ok(())
    }
}

/// Whether a name looks like an actor of the audit log that is no administrator, ignoring punctuation.
fn is_reserved(name: &str) -> bool {
    let whole = outline(name);
    let first = name
        .split(|c: char| !c.is_alphanumeric())
        .find(|part| !part.is_empty());
    [Actor::SERVER, Actor::PROGRAM, Actor::COMMAND_LINE]
        .iter()
        .any(|reserved| outline(reserved) == whole)
        || first.is_some_and(|first| outline(first) == outline(Actor::SITE))
}

/// The name as a reader might misread it: letters and digits only, lower case, look-alikes replaced by one of them.
fn outline(name: &str) -> String {
    let skeleton: String = skeleton(&name.to_lowercase()).collect();
    let letters = skeleton.to_lowercase();
    let letters = letters.chars().filter(|c| c.is_alphanumeric());
    letters.map(|c| if c == 'i' { 'l' } else { c }).collect()
}

/// Whether one name can be mistaken for the other (UTS 39, section 4). Compares the skeletons of both spellings, as
/// written and in lower case, because the skeleton of a digit may be a capital letter.
pub(super) fn confusable(one: &str, other: &str) -> bool {
    let folded = |name: &str| skeleton(name).collect::<String>().to_lowercase();
    folded(one) == folded(other) || folded(&one.to_lowercase()) == folded(&other.to_lowercase())
}

/// Rejects a change that would leave no owner. `new` is `None` if the account is removed.
pub(super) fn check_owner_remains(
    old: Role,
    new: Option<Role>,
    owners: u32,
) -> Result<(), Refusal> {
    if old == Role::Owner && new != Some(Role::Owner) && owners <= 1 {
        Err(Refusal::LastOwner)
    } else {
        Ok(())
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
            ("ada+panel@example.org", true),
            ("käthe@bücher.example", true),
            ("анна", true),
            ("花子", true),
            ("さくらA", true),
            ("аda", false), // a Cyrillic letter among Latin ones
            ("αda", false),
            ("ada\u{1f469}", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        for hidden in
            "\u{200b}\u{200c}\u{200d}\u{200e}\u{202e}\u{2066}\u{feff}\u{ad}\u{34f}\u{3164}".chars()
        {
            let name = format!("a{hidden}da");
            assert!(check_name(&name).is_err(), "{name:?}");
        }
        assert!(check_name(&"ä".repeat(64)).is_ok());
        assert!(check_name(&"ä".repeat(65)).is_err());
    }

    #[test]
    fn names_of_other_audit_log_actors_are_reserved() {
        for (name, reserved) in [
            ("server", true),
            ("Server", true),
            ("SERVER", true),
            ("s.e.r.v.e.r", true),
            ("_server_", true),
            ("ѕегvег", true), // mixed, and a look-alike
            ("site", true),
            ("s1te", true),
            ("sIte", true),
            ("sіtе", true),
            ("site.example.org", true),
            ("site-www.example.org", true),
            ("program", true),
            ("Pr0gram", true),
            ("programmer", false),
            ("command-line", true),
            ("commandline", true),
            ("c0mmand_1ine", true),
            ("servers", false),
            ("sitemanager", false),
            ("webserver", false),
            ("ada", false),
        ] {
            assert_eq!(check_name(name).is_err(), reserved, "{name}");
        }
    }

    #[test]
    fn names_that_look_alike_are_confusable() {
        for (one, other, alike) in [
            ("ada", "Ada", true),
            ("lan", "Ian", true),
            ("paul", "pau1", true),
            ("otto", "0tt0", true),
            ("epoc", "ерос", true), // all Cyrillic
            ("käthe", "ka\u{308}the", true),
            ("marn", "mam", true),
            ("ada", "eva", false),
            ("ada.l", "ada-l", false),
            ("käthe", "kathe", false),
        ] {
            assert_eq!(confusable(one, other), alike, "{one} {other}");
        }
    }

    #[test]
    fn the_last_owner_cannot_be_removed_or_demoted() {
        for (old, new, owners, rejected) in [
            (Role::Owner, None, 1, true),
            (Role::Owner, Some(Role::Admin), 1, true),
            (Role::Owner, Some(Role::Owner), 1, false),
            (Role::Owner, None, 2, false),
            (Role::Admin, None, 1, false),
            (Role::Admin, Some(Role::Support), 1, false),
        ] {
            let result = check_owner_remains(old, new, owners);
            assert_eq!(result.is_err(), rejected, "{old:?} {new:?} {owners}");
        }
    }
}
