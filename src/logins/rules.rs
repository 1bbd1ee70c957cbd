//! Rules for logins: how long one is valid, and when a password or second factor must be given again.

use std::time::Duration;

use super::{Session, Stage};
use crate::clock::UnixMs;
use crate::error::{Error, RefusalKind, Refused};

/// How long an accepted password or second factor is enough for irreversible actions; they ask for it again afterwards.
const REAUTHENTICATION_VALID: Duration = Duration::from_mins(5);
/// How long a login may wait for its second factor.
pub(super) const SECOND_FACTOR_TIMEOUT: Duration = Duration::from_mins(10);

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
pub fn ends_in_s(session: &Session, lifetime: SessionLifetime, now: UnixMs) -> u64 {
    let end = session
        .created_at
        .plus(lifetime.absolute)
        .min(now.plus(lifetime.idle));
    u64::try_from(end.0.saturating_sub(now.0) / 1000).unwrap_or(0)
}

/// Whether a password or second factor was accepted recently enough for an irreversible action.
pub fn recently_authenticated(proved_at: UnixMs, now: UnixMs) -> bool {
    now < proved_at.plus(REAUTHENTICATION_VALID)
}

/// Why a login, or a change of what an administrator logs in with, is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no login, or it has ended.
    NotLoggedIn,
    /// The name is unknown or the password is wrong; the response does not say which.
    WrongPassword,
    /// The code is wrong or already used.
    WrongCode,
    /// The action is irreversible: the password or second factor must be given again.
    ReauthenticationRequired,
    /// No second factor waits for its first code.
    NoPendingSecondFactor,
}

impl Refusal {
    /// The code in responses; never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not_logged_in",
            Self::WrongPassword => "wrong_password",
            Self::WrongCode => "wrong_code",
            Self::ReauthenticationRequired => "reauthentication_required",
            Self::NoPendingSecondFactor => "nothing_pending",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::NotLoggedIn | Self::WrongPassword | Self::WrongCode => RefusalKind::Unauthorized,
            Self::ReauthenticationRequired => RefusalKind::Forbidden,
            Self::NoPendingSecondFactor => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind(), refusal.code())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
