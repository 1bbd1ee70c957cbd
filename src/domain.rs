//! Domains: host names in the form in which they are compared, stored and sent.

use std::fmt;

use crate::text;

/// Maximum length of a name in ASCII, in characters.
pub const DOMAIN_LEN_MAX: usize = 253;

/// A host name in ASCII (A-labels), in lower case, of two labels or more, with no port and no trailing dot;
/// never an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Domain(String);

impl Domain {
    /// Parses a host name in any script (UTS 46) and any case; `None` if it is no valid domain.
    pub fn parse(text: &str) -> Option<Self> {
        let ascii = idna::domain_to_ascii_strict(text).ok()?;
        let last = ascii.rsplit('.').next().unwrap_or_default();
        // Some programs read names that end in a number as IP addresses, in many spellings: 127.1, 0x7f.1.
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let named = ascii.contains('.') && ascii.len() <= DOMAIN_LEN_MAX && !is_number;
        named.then_some(Self(ascii))
    }

    /// Parses user input, such as an address pasted from a browser: only its host name counts, and a trailing dot
    /// is ignored. A port other than the default one is rejected, since it would be lost.
    pub fn from_input(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c| text::is_trimmed(c) || matches!(c, '<' | '>' | '"'));
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let port = match scheme.to_ascii_lowercase().as_str() {
            "" | "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.strip_suffix(port).unwrap_or(host);
        Self::parse(host.strip_suffix('.').unwrap_or(host))
    }

    /// A name as stored in the database; not checked again.
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The name in ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in its own script, if that differs. Show it only beside the ASCII name, since letters of two
    /// scripts can look the same.
    pub fn to_unicode(&self) -> Option<String> {
        let (unicode, parsed) = idna::domain_to_unicode(&self.0);
        parsed
            .ok()
            .map(|()| unicode)
            .filter(|unicode| *unicode != self.0)
    }

    /// The search term for names and their [`spellings`](Self::spellings): of a pasted address, its host name.
    pub fn search_term(search: &str) -> String {
        let pasted = search
            .contains("://")
            .then(|| Self::from_input(search))
            .flatten();
        pasted.map_or_else(|| text::casefold(search.trim()), |domain| domain.0)
    }

    /// The name in ASCII and in its own script, as the text that searches compare.
    pub fn spellings(&self) -> String {
        match self.to_unicode() {
            Some(unicode) => format!("{} {}", self.0, text::casefold(&unicode)),
            None => self.0.clone(),
        }
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
    fn pasted_input_is_parsed_as_its_host_name() {
        for typed in [
            "www.example.org",
            " WWW.Example.ORG. ",
            "https://www.example.org",
            "https://www.example.org/shop/?a=b#c",
            "HTTP://www.example.org:80/",
            "https://www.example.org:443",
            "www.example.org/shop",
            "<https://www.example.org>",
            "\u{feff}www.example.org\u{200b}\n",
            "\u{ff57}ww.example.org",
        ] {
            let parsed = Domain::from_input(typed);
            assert_eq!(
                parsed.as_ref().map(Domain::as_str),
                Some("www.example.org"),
                "{typed:?}"
            );
        }
        for wrong in [
            "",
            "https://",
            "ftp://www.example.org",
            "https://www.example.org:8443/",
            "mail@example.org",
            "www.example.org..",
            "https://192.0.2.1/",
            "localhost",
        ] {
            assert_eq!(Domain::from_input(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_search_finds_a_name_in_every_spelling() {
        let all = Domain::parse("www.Stra\u{df}e.B\u{fc}cher.example")
            .unwrap()
            .spellings();
        for part in [
            "xn--bcher-kva",
            "b\u{fc}ch",
            "strasse.b\u{fc}cher",
            "www.",
            "xn--strae-oqa",
        ] {
            assert!(all.contains(&Domain::search_term(part)), "{part} in {all}");
        }
        let pasted = Domain::search_term(" https://WWW.Stra\u{df}e.b\u{fc}cher.example/shop ");
        assert!(all.contains(&pasted), "{pasted} in {all}");
    }

    #[test]
    fn names_are_converted_to_ascii_and_ip_addresses_are_rejected() {
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
