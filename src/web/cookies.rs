//! The cookies of the panel, and no others: what a stranger puts beside them is not kept for a request.

/// Of a login. Its prefix binds it to this host, HTTPS and the path `/`.
pub const LOGIN: &str = "__Host-session";
/// Of a browser in which an administrator has logged in.
pub const BROWSER: &str = "__Host-known";
/// The language of the pages.
pub const LANGUAGE: &str = "lang";
/// Whether the pages are light or dark.
pub const THEME: &str = "theme";

const ALL: [&str; 4] = [LOGIN, BROWSER, LANGUAGE, THEME];

/// Whether a cookie of this name is one of ours.
pub fn is_ours(name: &str) -> bool {
    ALL.contains(&name)
}
