//! Domains: host names as they are compared, stored and sent.

use std::fmt;

/// Longest name, in characters of ASCII.
pub const DOMAIN_LEN_MAX: usize = 253;

/// A host name in ASCII (A-labels), in lower case, of two labels or more, with no port and no trailing dot;
/// never an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Domain(String);

impl Domain {
    /// Reads a name as people write it: other scripts are converted (UTS 46), case does not count.
    pub fn parse(text: &str) -> Option<Self> {
        let ascii = idna::domain_to_ascii_strict(text).ok()?;
        let last = ascii.rsplit('.').next().unwrap_or_default();
        // What ends in a number is read as an address somewhere, in one of its many spellings: 127.1, 0x7f.1.
        let number = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let named = ascii.contains('.') && ascii.len() <= DOMAIN_LEN_MAX && !number;
        named.then_some(Self(ascii))
    }

    /// The name as the file has it.
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The name in ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people of its script write it, where that is another; only to be shown beside the name
    /// itself, since letters of two scripts can look the same.
    pub fn in_its_script(&self) -> Option<String> {
        let (shown, read) = idna::domain_to_unicode(&self.0);
        read.ok().map(|()| shown).filter(|shown| *shown != self.0)
    }

    /// A part of a name as people type it, to be looked for in names.
    pub fn part(text: &str) -> String {
        let text = text.trim();
        idna::domain_to_ascii(text).unwrap_or_else(|_| text.to_lowercase())
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_ascii_and_addresses_are_no_names() {
        for (text, ascii) in [
            ("Bücher.example", "xn--bcher-kva.example"),
            ("WWW.Example.org", "www.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("a1.b2", "a1.b2"),
            ("0x.example", "0x.example"),
        ] {
            assert_eq!(Domain::parse(text).unwrap().as_str(), ascii);
        }
        let long = format!("{}example", format!("{}.", "a".repeat(62)).repeat(4));
        for wrong in [
            "",
            ".",
            "localhost",
            "example.org.",
            "192.0.2.1",
            "192.0.2.1.",
            "[::1]",
            "::1",
            "127.1",
            "0x7f.1",
            "1.0x7f000001",
            "a.0x",
            "exa mple.org",
            "a..b",
            ".example.org",
            "x/y.org",
            "example.org:80",
            "user@example.org",
            "a_b.example.org",
            "-a.example",
            "a-.example",
            "xn--.example",
            "*.example.org",
            "example.org\n",
            "exa\u{0}mple.org",
            &long,
            &format!("{}.example", "a".repeat(64)),
        ] {
            assert_eq!(Domain::parse(wrong), None, "{wrong:?}");
        }
    }
}
