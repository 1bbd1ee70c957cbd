//! The names of the panel's cookies. Cookies with other names are dropped before a request reaches Rocket.

/// The token of a login. The prefix `__Host-` binds it to this host, HTTPS and the path `/`.
pub const LOGIN: &str = "__Host-session";
/// The token of a browser in which an administrator has logged in before.
pub const BROWSER: &str = "__Host-known";
/// The language of the pages.
pub const LANGUAGE: &str = "lang";
/// `light` or `dark`.
pub const THEME: &str = "theme";

const ALL: [&str; 4] = [LOGIN, BROWSER, LANGUAGE, THEME];

/// Whether `name` is one of the panel's cookies.
pub fn is_ours(name: &str) -> bool {
    ALL.contains(&name)
}
