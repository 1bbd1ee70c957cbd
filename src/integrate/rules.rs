//! The calls of a program as lines for a terminal, and when none is rehearsed.

use crate::error::{Error, Refused};

/// What stands in a line where the session's token goes.
const TOKEN: &str = "PASTE-THE-SESSION-TOKEN";

/// Why nothing is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A program runs on the license, and would be disturbed.
    InUse,
}

impl Refusal {
    /// The word that its text is found by.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InUse => "license_in_use",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::plain(refusal.code()).into()
    }
}

/// What the calls are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// `https://…`, without a slash at its end.
    pub(super) url: &'a str,
    pub(super) api_key: &'a str,
    pub(super) license_key: &'a str,
    pub(super) version: &'a str,
    /// The file that clients must trust, if there is one of our own.
    pub(super) authority: Option<&'a str>,
}

/// A call, as a line for a terminal.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Call {
    /// The path below `/api/license`.
    pub(super) deed: &'static str,
    /// The word that its text is found by.
    pub(super) word: &'static str,
    pub(super) line: String,
}

/// The calls of a program in their order.
pub(super) fn calls(known: &Known<'_>) -> Vec<Call> {
    let device = serde_json::json!({
        "license_key": known.license_key, "machine_id": "my-desk", "hardware_hash": "f3a9",
        "version": known.version,
    })
    .to_string();
    let beat = serde_json::json!({ "session_token": TOKEN, "license_key": known.license_key });
    let end = serde_json::json!({ "session_token": TOKEN });
    [
        ("activate", "activate", device.clone()),
        ("verify", "verify", device.clone()),
        ("session/start", "start", device),
        ("session/heartbeat", "heartbeat", beat.to_string()),
        ("session/end", "end", end.to_string()),
    ]
    .into_iter()
    .map(|(deed, word, body)| Call {
        deed,
        word,
        line: line(known, deed, &body),
    })
    .collect()
}

fn line(known: &Known<'_>, deed: &str, body: &str) -> String {
    let trust = known
        .authority
        .map(|file| format!(" --cacert {}", quoted(file)))
        .unwrap_or_default();
    let address = quoted(&format!("{}/api/license/{deed}", known.url));
    let key = quoted(&format!("X-API-Key: {}", known.api_key));
    format!(
        "curl{trust} {address} \\\n  -H {key} \\\n  -H 'Content-Type: application/json' \\\n  -d {}",
        quoted(body)
    )
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a site's half of the handshake is filled in with.
#[derive(Clone, Debug)]
pub(super) struct Site<'a> {
    /// `https://…`, without a slash at its end.
    pub(super) url: &'a str,
    /// In force and next, with a space between.
    pub(super) public_keys: String,
    /// `https://…`, with a port where it is not the usual one.
    pub(super) origin: String,
    pub(super) callback_path: &'a str,
    /// The file beside it that it must trust, if there is one of our own.
    pub(super) authority: Option<&'a str>,
}

/// A site's half of the handshake, in a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Php,
    Python,
}

impl Half {
    /// Every language.
    pub(super) const ALL: [Self; 2] = [Self::Php, Self::Python];

    /// The word that its texts are found by.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Php => "php",
            Self::Python => "python",
        }
    }

    /// What it is called where it is kept. Python has a module `site` of its own.
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Php => "site.php",
            Self::Python => "site_license.py",
        }
    }

    /// What its address ends on.
    pub(super) const fn address(self) -> &'static str {
        match self {
            Self::Php => "site.php",
            Self::Python => "site.py",
        }
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Php => include_str!("../../assets/clients/site.php"),
            Self::Python => include_str!("../../assets/clients/site.py"),
        }
    }

    /// The file, with all that is known filled in.
    pub(super) fn filled(self, site: &Site<'_>) -> String {
        let mut text = self
            .template()
            .replacen("https://licenses.example.org", site.url, 1)
            .replacen("AAAA=", &site.public_keys, 1)
            .replacen("https://www.example.org", &site.origin, 1)
            .replacen("/.well-known/license-server", site.callback_path, 1);
        if let Some(file) = site.authority {
            let (none, beside) = match self {
                Self::Php => (
                    "AUTHORITY = null",
                    format!("AUTHORITY = __DIR__ . '/{file}'"),
                ),
                Self::Python => (
                    "AUTHORITY = None",
                    format!(
                        "AUTHORITY = os.path.join(os.path.dirname(os.path.abspath(__file__)), \"{file}\")"
                    ),
                ),
            };
            text = text.replacen(none, &beside, 1);
        }
        text
    }

    /// The line that registers the site with a license.
    pub(super) fn line(self, key: &str) -> String {
        match self {
            Self::Php => format!(
                "php -r \"require '{}'; var_dump(LicenseServer\\register('{key}'));\"",
                self.file()
            ),
            Self::Python => {
                format!("python3 -c \"import site_license; print(site_license.register('{key}'))\"")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_word_stays_in_it() {
        for (text, word) in [
            ("plain", "'plain'"),
            ("a b$(c)`d`\\", "'a b$(c)`d`\\'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }

    #[test]
    fn a_line_holds_all_that_a_call_needs() {
        let known = Known {
            url: "https://example.org",
            api_key: "lsk_1",
            license_key: "K",
            version: "1.2.0",
            authority: Some("ca.pem"),
        };
        let calls = calls(&known);
        let deeds: Vec<&str> = calls.iter().map(|call| call.deed).collect();
        assert_eq!(
            deeds,
            [
                "activate",
                "verify",
                "session/start",
                "session/heartbeat",
                "session/end"
            ]
        );
        assert_eq!(
            calls[4].line,
            "curl --cacert 'ca.pem' 'https://example.org/api/license/session/end' \\\n  \
             -H 'X-API-Key: lsk_1' \\\n  -H 'Content-Type: application/json' \\\n  \
             -d '{\"session_token\":\"PASTE-THE-SESSION-TOKEN\"}'"
        );
        let public = Known {
            authority: None,
            ..known
        };
        assert!(super::calls(&public)[0].line.starts_with("curl 'https://"));
    }
}
