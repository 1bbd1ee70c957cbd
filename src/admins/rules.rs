//! What an administrator may be called and may do.

use std::time::Duration;

use unicode_security::{RestrictionLevel, RestrictionLevelDetection, skeleton};

use super::{Admin, Role, Session, Stage};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::error::{Error, Refused, Result};

/// Longest name, in characters.
const NAME_MAX: usize = 64;
/// How long a password or second factor that was just given stands for the person: final deeds ask again
/// after it.
const PROOF: Duration = Duration::from_mins(5);
/// How long a login waits for its second factor.
pub(super) const HALF_DONE: Duration = Duration::from_mins(10);

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
pub struct SessionLifetime {
    /// From the login on.
    pub whole: Duration,
    /// From the last request on.
    pub idle: Duration,
}

/// Whether a login still lasts at `now`.
pub(super) fn lasts(session: &Session, lasting: SessionLifetime, now: UnixMs) -> bool {
    let whole = match session.stage {
        Stage::Full => lasting.whole,
        Stage::Password => lasting.whole.min(HALF_DONE),
    };
    now < session.created_at.plus(whole) && now < session.seen_at.plus(lasting.idle)
}

/// In how many seconds a login that is used at `now` ends, if it is not used again.
pub(super) fn ends_in_s(session: &Session, lasting: SessionLifetime, now: UnixMs) -> u64 {
    let end = session
        .created_at
        .plus(lasting.whole)
        .min(now.plus(lasting.idle));
    u64::try_from(end.0.saturating_sub(now.0) / 1000).unwrap_or(0)
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
    /// The name is that of somebody else in the audit log, or looks like it.
    NameReserved,
    /// The name looks like the one of another administrator.
    NameConfusable,
    /// Nobody works here without a second factor, and this person has none yet.
    FactorMissing,
    /// A final deed: the password or the second factor is to be given again.
    ProveFirst,
    /// One's own role is changed by somebody else.
    OwnRole,
    /// One does not remove oneself.
    OwnAccount,
    /// The second factor was given already.
    AlreadyIn,
    /// The time to confirm a second factor is over, or it was confirmed already.
    NothingPending,
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
            Self::NameReserved => "name_reserved",
            Self::NameConfusable => "name_confusable",
            Self::FactorMissing => "factor_missing",
            Self::ProveFirst => "prove_first",
            Self::OwnRole => "own_role",
            Self::OwnAccount => "own_account",
            Self::AlreadyIn => "already_in",
            Self::NothingPending => "nothing_pending",
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

/// Refuses a name that cannot be typed or told apart, and one that looks like another actor of the audit log: 1 to
/// 64 letters of one script, digits and signs, without spaces.
///
/// # Errors
/// [`Error::Invalid`] for the name, [`Refusal::NameReserved`].
pub(super) fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    let printable = |c: char| !c.is_control() && !c.is_whitespace();
    // Of UTS 39: what has no width, marks of direction, symbols and scripts that no living language uses are not
    // allowed, and scripts are mixed as in Japanese only. Signs of ASCII stand in addresses of mail.
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

/// Whether a name looks like one that the audit log gives to somebody else, however it is spaced.
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

/// What a hasty look at a name sees: letters alone, in one case, with look-alikes as one.
fn outline(name: &str) -> String {
    let seen: String = skeleton(&name.to_lowercase()).collect();
    let letters = seen.to_lowercase();
    let letters = letters.chars().filter(|c| c.is_alphanumeric());
    letters.map(|c| if c == 'i' { 'l' } else { c }).collect()
}

/// Whether one name can be taken for the other: UTS 39, section 4, as it is written and in small letters; the
/// skeleton of a digit may be a capital.
pub(super) fn confusable(one: &str, other: &str) -> bool {
    let seen = |name: &str| skeleton(name).collect::<String>().to_lowercase();
    seen(one) == seen(other) || seen(&one.to_lowercase()) == seen(&other.to_lowercase())
}

/// What a route asks of the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A complete login of somebody with this role or a mightier one, who has the second factor that the
    /// settings may demand.
    Role(Role),
    /// A complete login; the second factor may still have to be set up.
    Person,
    /// A login that waits for its second factor.
    HalfDone,
}

/// Refuses a stage, a missing second factor, or a role that does not suffice.
pub(super) fn admit(
    stage: Stage,
    admin: &Admin,
    wanted: Wanted,
    totp_required: bool,
) -> Result<(), Refusal> {
    let role = match (wanted, stage) {
        (Wanted::HalfDone, Stage::Password) | (Wanted::Person, Stage::Full) => return Ok(()),
        (Wanted::HalfDone, Stage::Full) => return Err(Refusal::AlreadyIn),
        (Wanted::Role(role), Stage::Full) => role,
        (Wanted::Role(_) | Wanted::Person, Stage::Password) => return Err(Refusal::NotLoggedIn),
    };
    if totp_required && !admin.has_totp {
        return Err(Refusal::FactorMissing);
    }
    if admin.role.includes(role) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// Refuses a change that would leave nobody who can let anybody in.
pub(super) fn keeps_an_owner(old: Role, new: Option<Role>, owners: u32) -> Result<(), Refusal> {
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
    fn nobody_is_called_like_another_actor_of_the_audit_log() {
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

    fn somebody(role: Role, has_totp: bool) -> Admin {
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
    fn half_a_login_opens_nothing_but_the_page_for_the_other_half() {
        use {Refusal::*, Stage::*};
        let owner = somebody(Role::Owner, true);
        for (stage, wanted, told) in [
            (Password, Wanted::HalfDone, Ok(())),
            (Password, Wanted::Person, Err(NotLoggedIn)),
            (Password, Wanted::Role(Role::Support), Err(NotLoggedIn)),
            (Full, Wanted::HalfDone, Err(AlreadyIn)),
            (Full, Wanted::Person, Ok(())),
            (Full, Wanted::Role(Role::Owner), Ok(())),
        ] {
            assert_eq!(
                admit(stage, &owner, wanted, false),
                told,
                "{stage:?} {wanted:?}"
            );
            assert_eq!(
                admit(stage, &owner, wanted, true),
                told,
                "{stage:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn a_second_factor_that_is_demanded_comes_before_anything_else() {
        use Refusal::*;
        for (role, has_totp, required, told) in [
            (Role::Support, false, false, Ok(())),
            (Role::Support, false, true, Err(FactorMissing)),
            (Role::Owner, false, true, Err(FactorMissing)),
            (Role::Owner, true, true, Ok(())),
        ] {
            let wanted = Wanted::Role(Role::Support);
            let person = somebody(role, has_totp);
            assert_eq!(admit(Stage::Full, &person, wanted, required), told);
            assert_eq!(
                admit(Stage::Full, &person, Wanted::Person, required),
                Ok(())
            );
        }
    }

    #[test]
    fn the_last_owner_stays() {
        for (old, new, owners, stays) in [
            (Role::Owner, None, 1, true),
            (Role::Owner, Some(Role::Admin), 1, true),
            (Role::Owner, Some(Role::Owner), 1, false),
            (Role::Owner, None, 2, false),
            (Role::Admin, None, 1, false),
            (Role::Admin, Some(Role::Support), 1, false),
        ] {
            let told = keeps_an_owner(old, new, owners);
            assert_eq!(told.is_err(), stays, "{old:?} {new:?} {owners}");
        }
    }

    #[test]
    fn logins_end_by_age_by_silence_and_half_done_ones_soon() {
        let minutes = |m: u64| Duration::from_mins(m);
        let lasting = SessionLifetime {
            whole: minutes(720),
            idle: minutes(60),
        };
        for (stage, created, seen, now, held) in [
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
            assert_eq!(lasts(&session, lasting, at(now)), held, "{stage:?} {now}");
        }
        assert!(proved_lately(UnixMs(0), UnixMs(0).plus(minutes(4))));
        assert!(!proved_lately(UnixMs(0), UnixMs(0).plus(minutes(5))));
    }
}
