//! The calls of a program as shell commands, the files for a website, and when a dry run is refused.

use crate::error::{Error, RefusalKind, Refused};

/// The placeholder for the session token in a command.
const TOKEN: &str = "PASTE-THE-SESSION-TOKEN";

/// Why a dry run is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A session runs on the license and would be disturbed.
    InUse,
}

impl Refusal {
    /// The code by which its text is found.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InUse => "license_in_use",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::InUse => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::new(refusal.kind(), refusal.code()).into()
    }
}

/// The values that are filled into the calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallParameters<'a> {
    /// `https://…`, without a trailing slash.
    pub(super) url: &'a str,
    pub(super) api_key: &'a str,
    pub(super) license_key: &'a str,
    pub(super) version: &'a str,
    /// The file with the certificate that clients must trust; `None` if it comes from a public authority.
    pub(super) authority: Option<&'a str>,
}

/// A call as a shell command.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Call {
    /// The path below `/api/license`.
    pub(super) endpoint: &'static str,
    /// The key of its text.
    pub(super) word: &'static str,
    pub(super) line: String,
}

/// The calls of a program in the order in which it makes them.
pub(super) fn calls(parameters: &CallParameters<'_>) -> Vec<Call> {
    let device = serde_json::json!({
        "license_key": parameters.license_key, "machine_id": "my-desk", "hardware_hash": "f3a9",
        "version": parameters.version,
    })
    .to_string();
    let heartbeat =
        serde_json::json!({ "session_token": TOKEN, "license_key": parameters.license_key });
    let end = serde_json::json!({ "session_token": TOKEN });
    [
        ("activate", "activate", device.clone()),
        ("verify", "verify", device.clone()),
        ("session/start", "start", device),
        ("session/heartbeat", "heartbeat", heartbeat.to_string()),
        ("session/end", "end", end.to_string()),
    ]
    .into_iter()
    .map(|(path, word, body)| Call {
        endpoint: path,
        word,
        line: line(parameters, path, &body),
    })
    .collect()
}

fn line(parameters: &CallParameters<'_>, path: &str, body: &str) -> String {
    let trust = parameters
        .authority
        .map(|file| format!(" --cacert {}", shell_quoted(file)))
        .unwrap_or_default();
    let address = shell_quoted(&format!("{}/api/license/{path}", parameters.url));
    let key = shell_quoted(&format!("X-API-Key: {}", parameters.api_key));
    format!(
        "curl{trust} {address} \\\n  -H {key} \\\n  -H 'Content-Type: application/json' \\\n  -d {}",
        shell_quoted(body)
    )
}

/// Quotes `text` as one word for a shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The values that are filled into the file for a website.
#[derive(Clone, Debug)]
pub(super) struct SiteParameters<'a> {
    /// `https://…`, without a trailing slash.
    pub(super) url: &'a str,
    /// The current and the next public key, separated by a space.
    pub(super) public_keys: String,
    /// `https://…`, with the port unless it is 443.
    pub(super) origin: String,
    pub(super) callback_path: &'a str,
    /// The file with the certificate that the site must trust; `None` if it comes from a public authority.
    pub(super) authority: Option<&'a str>,
}

/// The file with a website's part of the handshake, by its language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientFile {
    Php,
    Python,
}

impl ClientFile {
    /// Every language.
    pub(super) const ALL: [Self; 2] = [Self::Php, Self::Python];

    /// The suffix of the keys of its texts.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Php => "php",
            Self::Python => "python",
        }
    }

    /// Its file name. Python has a standard module `site`, hence another name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Php => "site.php",
            Self::Python => "site_license.py",
        }
    }

    /// The last part of the path of its download.
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

    /// The text of the file, with the values of `site` filled in.
    pub(super) fn filled(self, site: &SiteParameters<'_>) -> String {
        let mut text = self
            .template()
            .replacen("https://licenses.example.org", site.url, 1)
            .replacen("AAAA=", &site.public_keys, 1)
            .replacen("https://www.example.org", &site.origin, 1)
            .replacen("/.well-known/license-server", site.callback_path, 1);
        if let Some(file) = site.authority {
            let (default, with_file) = match self {
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
            text = text.replacen(default, &with_file, 1);
        }
        text
    }

    /// The shell command that registers the site with the license `key`.
    pub(super) fn line(self, key: &str) -> String {
        match self {
            Self::Php => format!(
                "php -r \"require '{}'; var_dump(LicenseServer\\register('{key}'));\"",
                self.name()
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
    fn shell_quoting_keeps_every_character_in_one_word() {
        for (text, word) in [
            ("plain", "'plain'"),
            ("a b$(c)`d`\\", "'a b$(c)`d`\\'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(shell_quoted(text), word);
        }
    }

    #[test]
    fn a_command_contains_everything_that_a_call_needs() {
        let parameters = CallParameters {
            url: "https://example.org",
            api_key: "lsk_1",
            license_key: "K",
            version: "1.2.0",
            authority: Some("ca.pem"),
        };
        let calls = calls(&parameters);
        let paths: Vec<&str> = calls.iter().map(|call| call.endpoint).collect();
        assert_eq!(
            paths,
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
        let public = CallParameters {
            authority: None,
            ..parameters
        };
        assert!(super::calls(&public)[0].line.starts_with("curl 'https://"));
    }
}
