//! Rules for requests of the panel: which login a page requires.

use super::HOME;
use crate::admins::{Admin, Role};
use crate::config::Panel as PanelSettings;
use crate::error::{Error, RefusalKind, Refused};
use crate::logins::Stage;

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
    settings: &PanelSettings,
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
    if settings.require_totp && !admin.has_totp {
        return Err(Refusal::SecondFactorRequired);
    }
    if admin.role.includes(role) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// Whether `path`, with or without a query, leads to a page of the panel and no further.
pub fn is_path_of_panel(path: &str) -> bool {
    let clean = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let below = path
        .strip_prefix(HOME)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    clean && below && !path.contains("//")
}

/// The pages that are about one product: with several products and none chosen, they are about the first that is not
/// archived. Every other page is about all products then.
const OF_ONE_PRODUCT: [&str; 2] = ["/integrate", "/licenses/new"];
/// The sections whose pages are all about one product.
const SECTIONS_OF_ONE_PRODUCT: [&str; 4] = ["config", "plans", "releases", "setup"];
/// The pages below a section, besides its first one, that exist for every product.
const OF_EVERY_PRODUCT: [&str; 8] = [
    "/integrate/site",
    "/licenses/new",
    "/plans/new",
    "/products/new",
    "/releases/new",
    "/sessions/history",
    "/sites/handshakes",
    "/sites/transfers",
];

/// Whether the page at `path` is about one product.
pub(super) fn is_about_one_product(path: &str) -> bool {
    let page = path.strip_prefix(HOME).unwrap_or(path);
    let section = page.split('/').nth(1);
    OF_ONE_PRODUCT.contains(&page)
        || section.is_some_and(|section| SECTIONS_OF_ONE_PRODUCT.contains(&section))
}

/// The page that the product switcher leads to from the one at `path`: the same one, or the list that it belongs to if
/// another product has no such page.
pub(super) fn page_for_another_product(path: &str) -> String {
    let page = path.strip_prefix(HOME).unwrap_or(path);
    if OF_EVERY_PRODUCT.contains(&page) {
        return format!("{HOME}{page}");
    }
    match page.split('/').nth(1) {
        None | Some("" | "setup" | "prove" | "login") => HOME.to_owned(),
        Some(section) => format!("{HOME}/{section}"),
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no login, or it has ended.
    NotLoggedIn,
    /// The role does not allow it.
    Forbidden,
    /// The settings require a second factor, and this account has none yet.
    SecondFactorRequired,
    /// The login is already complete.
    AlreadyLoggedIn,
}

impl Refusal {
    /// The code in responses; never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not_logged_in",
            Self::Forbidden => "forbidden",
            Self::SecondFactorRequired => "second_factor_missing",
            Self::AlreadyLoggedIn => "already_logged_in",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::NotLoggedIn => RefusalKind::Unauthorized,
            Self::Forbidden | Self::SecondFactorRequired => RefusalKind::Forbidden,
            Self::AlreadyLoggedIn => RefusalKind::Conflict,
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
    use crate::clock::UnixMs;

    fn settings(require_totp: bool) -> PanelSettings {
        PanelSettings {
            require_totp,
            ..PanelSettings::default()
        }
    }

    fn admin(role: Role, has_totp: bool) -> Admin {
        Admin {
            id: crate::id::AdminId(1),
            name: "ada".to_owned(),
            role,
            language: None,
            time_zone: None,
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
                check_access(stage, &owner, required, &settings(false)),
                expected,
                "{stage:?} {required:?}"
            );
            assert_eq!(
                check_access(stage, &owner, required, &settings(true)),
                expected,
                "{stage:?} {required:?}"
            );
        }
    }

    #[test]
    fn every_page_is_about_one_product_or_about_all() {
        for (path, about_one, page) in [
            ("/lizenzserver", false, "/lizenzserver"),
            ("/lizenzserver/licenses/7", false, "/lizenzserver/licenses"),
            (
                "/lizenzserver/licenses/new",
                true,
                "/lizenzserver/licenses/new",
            ),
            (
                "/lizenzserver/licenses/newer",
                false,
                "/lizenzserver/licenses",
            ),
            ("/lizenzserver/config", true, "/lizenzserver/config"),
            (
                "/lizenzserver/config/flags/a/remove",
                true,
                "/lizenzserver/config",
            ),
            ("/lizenzserver/configure", false, "/lizenzserver/configure"),
            (
                "/lizenzserver/releases/1.2.0/edit",
                true,
                "/lizenzserver/releases",
            ),
            (
                "/lizenzserver/sessions/history",
                false,
                "/lizenzserver/sessions/history",
            ),
            (
                "/lizenzserver/sessions/7/terminate",
                false,
                "/lizenzserver/sessions",
            ),
            ("/lizenzserver/integrate", true, "/lizenzserver/integrate"),
            (
                "/lizenzserver/integrate/site",
                false,
                "/lizenzserver/integrate/site",
            ),
            ("/lizenzserver/setup/license", true, "/lizenzserver"),
            ("/lizenzserver/prove", false, "/lizenzserver"),
        ] {
            assert_eq!(is_about_one_product(path), about_one, "{path}");
            assert_eq!(page_for_another_product(path), page, "{path}");
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
            let (admin, settings) = (admin(role, has_totp), settings(totp_required));
            assert_eq!(
                check_access(Stage::Full, &admin, required, &settings),
                expected
            );
            assert_eq!(
                check_access(Stage::Full, &admin, Required::AnyAdmin, &settings),
                Ok(())
            );
        }
    }
}
