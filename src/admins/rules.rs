//! Rules for administrators: names, roles, access, and how long a login is valid.

use std::time::Duration;

use unicode_security::{RestrictionLevel, RestrictionLevelDetection, skeleton};

use super::{Admin, Role, Session, Stage};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::error::{Error, Refused, Result};

/// Longest name, in characters.
const NAME_MAX: usize = 64;
/// How long an accepted password or second factor is enough for irreversible actions; they ask for it again afterwards.
const REAUTHENTICATION_VALID: Duration = Duration::from_mins(5);
/// How long a login may wait for its second factor.
pub(super) const SECOND_FACTOR_TIMEOUT: Duration = Duration::from_mins(10);

impl Role {
    /// Every role, most privileged first.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Support];

    /// The word in the database.
    pub const fn word(self) -> &'static str {
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
    pub fn from_word(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
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

/// How long a login is valid.
#[derive(Clone, Copy, Debug)]
pub struct SessionLifetime {
    /// After its creation.
    pub absolute: Duration,
    /// After its last request.
    pub idle: Duration,
}

/// Whether a login is valid at `now`.
pub(super) fn is_active(session: &Session, lifetime: SessionLifetime, now: UnixMs) -> bool {
    let whole = match session.stage {
        Stage::Full => lifetime.absolute,
        Stage::Password => lifetime.absolute.min(SECOND_FACTOR_TIMEOUT),
    };
    now < session.created_at.plus(whole) && now < session.seen_at.plus(lifetime.idle)
}

/// In how many seconds a login that is used at `now` expires, if it is not used again.
pub(super) fn ends_in_s(session: &Session, lifetime: SessionLifetime, now: UnixMs) -> u64 {
    let end = session
        .created_at
        .plus(lifetime.absolute)
        .min(now.plus(lifetime.idle));
    u64::try_from(end.0.saturating_sub(now.0) / 1000).unwrap_or(0)
}

/// Whether a password or second factor was accepted recently enough for an irreversible action.
pub(super) fn recently_authenticated(proved_at: UnixMs, now: UnixMs) -> bool {
    now < proved_at.plus(REAUTHENTICATION_VALID)
}

/// Why a login, a request or a change of an account is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no login, or it has ended.
    NotLoggedIn,
    /// The role does not allow it.
    Forbidden,
    /// The name is unknown or the password is wrong; the response does not say which.
    WrongPassword,
    /// The code is wrong or already used.
    WrongCode,
    /// The last owner cannot be removed or demoted: no account could add another owner.
    LastOwner,
    /// Another administrator has this name.
    NameTaken,
    /// The name is, or looks like, an actor of the audit log that is no administrator.
    NameReserved,
    /// The name looks like that of another administrator.
    NameConfusable,
    /// The settings require a second factor, and this account has none yet.
    SecondFactorRequired,
    /// The action is irreversible: the password or second factor must be given again.
    ReauthenticationRequired,
    /// Administrators cannot change their own role.
    OwnRole,
    /// Administrators cannot remove their own account.
    OwnAccount,
    /// The login is already complete.
    AlreadyLoggedIn,
    /// No second factor waits for its first code.
    NoPendingSecondFactor,
}

impl Refusal {
    /// The code in responses; never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not_logged_in",
            Self::Forbidden => "forbidden",
            Self::WrongPassword => "wrong_password",
            Self::WrongCode => "wrong_code",
            Self::LastOwner => "last_owner",
            Self::NameTaken => "name_taken",
            Self::NameReserved => "name_reserved",
            Self::NameConfusable => "name_confusable",
            Self::SecondFactorRequired => "factor_missing",
            Self::ReauthenticationRequired => "prove_first",
            Self::OwnRole => "own_role",
            Self::OwnAccount => "own_account",
            Self::AlreadyLoggedIn => "already_in",
            Self::NoPendingSecondFactor => "nothing_pending",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let refused = Self::plain(refusal.code());
        match refusal {
            Refusal::NameTaken | Refusal::NameReserved | Refusal::NameConfusable => {
                refused.with("field", "name")
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
pub(super) fn check_name(name: &str) -> Result<()> {
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
    [Actor::SERVER, Actor::COMMAND_LINE]
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

/// The login that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Required {
    /// A complete login with this role or a more privileged one, and with a second factor if the settings require it.
    Role(Role),
    /// Any complete login, even if a required second factor is not set up yet.
    AnyAdmin,
    /// A login that waits for its second factor.
    AwaitingSecondFactor,
}

/// Rejects a login that is incomplete, lacks a required second factor, or whose role is not sufficient.
pub(super) fn check_access(
    stage: Stage,
    admin: &Admin,
    required: Required,
    totp_required: bool,
) -> Result<(), Refusal> {
    let role = match (required, stage) {
        (Required::AwaitingSecondFactor, Stage::Password) | (Required::AnyAdmin, Stage::Full) => {
            return Ok(());
        }
        (Required::AwaitingSecondFactor, Stage::Full) => return Err(Refusal::AlreadyLoggedIn),
        (Required::Role(role), Stage::Full) => role,
        (Required::Role(_) | Required::AnyAdmin, Stage::Password) => {
            return Err(Refusal::NotLoggedIn);
        }
    };
    if totp_required && !admin.has_totp {
        return Err(Refusal::SecondFactorRequired);
    }
    if admin.role.includes(role) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
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

    fn admin(role: Role, has_totp: bool) -> Admin {
        Admin {
            id: crate::id::AdminId(1),
            name: "ada".to_owned(),
            role,
            language: None,
            single_keys: true,
            has_totp,
            created_at: UnixMs(0),
            password_set_at: UnixMs(0),
        }
    }

    #[test]
    fn an_incomplete_login_reaches_only_the_page_for_the_second_factor() {
        use {Refusal::*, Stage::*};
        let owner = admin(Role::Owner, true);
        for (stage, required, expected) in [
            (Password, Required::AwaitingSecondFactor, Ok(())),
            (Password, Required::AnyAdmin, Err(NotLoggedIn)),
            (Password, Required::Role(Role::Support), Err(NotLoggedIn)),
            (Full, Required::AwaitingSecondFactor, Err(AlreadyLoggedIn)),
            (Full, Required::AnyAdmin, Ok(())),
            (Full, Required::Role(Role::Owner), Ok(())),
        ] {
            assert_eq!(
                check_access(stage, &owner, required, false),
                expected,
                "{stage:?} {required:?}"
            );
            assert_eq!(
                check_access(stage, &owner, required, true),
                expected,
                "{stage:?} {required:?}"
            );
        }
    }

    #[test]
    fn a_required_second_factor_must_be_set_up_first() {
        use Refusal::*;
        for (role, has_totp, totp_required, expected) in [
            (Role::Support, false, false, Ok(())),
            (Role::Support, false, true, Err(SecondFactorRequired)),
            (Role::Owner, false, true, Err(SecondFactorRequired)),
            (Role::Owner, true, true, Ok(())),
        ] {
            let required = Required::Role(Role::Support);
            let admin = admin(role, has_totp);
            assert_eq!(
                check_access(Stage::Full, &admin, required, totp_required),
                expected
            );
            assert_eq!(
                check_access(Stage::Full, &admin, Required::AnyAdmin, totp_required),
                Ok(())
            );
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

    #[test]
    fn logins_expire_by_age_by_inactivity_and_sooner_while_incomplete() {
        let minutes = |m: u64| Duration::from_mins(m);
        let lifetime = SessionLifetime {
            absolute: minutes(720),
            idle: minutes(60),
        };
        for (stage, created, seen, now, active) in [
            (Stage::Full, 0, 0, 59, true),
            (Stage::Full, 0, 0, 60, false),
            (Stage::Full, 0, 700, 719, true),
            (Stage::Full, 0, 700, 720, false),
            (Stage::Password, 0, 9, 9, true),
            (Stage::Password, 0, 9, 10, false),
        ] {
            let at = |m| UnixMs(0).plus(minutes(m));
            let session = Session {
                id: crate::id::AdminSessionId(1),
                stage,
                address: String::new(),
                browser: String::new(),
                created_at: at(created),
                seen_at: at(seen),
                proved_at: at(created),
            };
            assert_eq!(
                is_active(&session, lifetime, at(now)),
                active,
                "{stage:?} {now}"
            );
        }
        assert!(recently_authenticated(
            UnixMs(0),
            UnixMs(0).plus(minutes(4))
        ));
        assert!(!recently_authenticated(
            UnixMs(0),
            UnixMs(0).plus(minutes(5))
        ));
    }
}
