//! The operator's settings: `license-server.toml`, overridden by `LICENSE_SERVER_SECTION__KEY` in the
//! environment. Read once, at the start. What administrators change in daily work is in the database.

mod commented;
mod lines;
mod requirement;
mod server;
mod settings;
mod tls;

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};

use crate::error::{Doing, Error, Result};
use crate::text;

pub use commented::commented;
pub use server::Server;
pub use settings::{
    Config, Database, Handshake, Language, Log, LogFormat, LogLevel, Panel, Privacy, Sessions,
    Synchronous,
};
pub use tls::{Tls, TlsMode};

/// The file that is read if the command line names none.
const DEFAULT_FILE: &str = "license-server.toml";
/// The file that an installed executable reads in a folder without one, so that commands work in every folder.
const INSTALLED_FILE: &str = "/etc/license-server.toml";
/// Where an executable counts as installed. One in another folder, such as a new build, never uses the database of the
/// installed one by mistake.
const INSTALLED_IN: [&str; 2] = ["/usr/bin", "/usr/local/bin"];
const PREFIX: &str = "LICENSE_SERVER_";

/// The settings in `file`; without it, those in `./license-server.toml`, for an installed executable else those in
/// `/etc/license-server.toml`, or the defaults if there is no file.
///
/// # Errors
/// [`Error::Usage`] with file, line and reason, for a missing file, an unknown key, a wrong type or an invalid
/// value.
pub fn load(file: Option<&Path>) -> Result<Config> {
    let path = file.map_or_else(default_file, Path::to_owned);
    let text = match std::fs::read(&path) {
        Ok(bytes) => text_of(bytes, &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
            String::new()
        }
        Err(error) => {
            return Err(Error::Usage(unreadable(&path, &error)));
        }
    };
    let name = path.display().to_string();
    // First the file alone, so that its errors can name a line.
    check_syntax(&text, &name)?;
    let settings = with_environment(&text)?;
    if let Err((key, reason)) = settings.check() {
        let location = match variable_for(key) {
            Some(variable) => format!("{variable} in the environment"),
            None => format!("{name}:{}", lines::of_key(&text, key)),
        };
        let example = example_of(key);
        return Err(Error::Usage(format!(
            "{location}: {key}: {reason}{example}"
        )));
    }
    Ok(settings)
}

/// The file to read if the command line names none; it need not exist.
fn default_file() -> PathBuf {
    let here = PathBuf::from(DEFAULT_FILE);
    if here.exists() || !is_installed() {
        return here;
    }
    let installed = PathBuf::from(INSTALLED_FILE);
    if installed.exists() { installed } else { here }
}

/// Whether this program is an installed one.
pub fn is_installed() -> bool {
    // A program that cannot find itself is not known to be installed.
    program().is_ok_and(|program| is_in_installed_folder(&program))
}

fn is_in_installed_folder(program: &Path) -> bool {
    let folder = program.parent();
    INSTALLED_IN.map(Path::new).map(Some).contains(&folder)
}

/// Refuses text with an unknown key or a wrong type. `name` is that of its file, for the message.
fn check_syntax(text: &str, name: &str) -> Result<()> {
    let parsed = toml::from_str::<Config>(text);
    parsed.map(drop).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| lines::of_offset(text, span.start));
        let key = lines::key_on(text, line);
        let example = key.map(|key| example_of(&key)).unwrap_or_default();
        Error::Usage(format!(
            "{name}:{line}: {}{example}",
            error.message().replace('\n', " ")
        ))
    })
}

/// Why the settings file at `path` cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let name = path.display();
    match error.kind() {
        std::io::ErrorKind::IsADirectory => {
            format!("{name} is a folder: name the settings file in it with --config")
        }
        std::io::ErrorKind::NotFound => {
            format!("there is no {name}: name a settings file, or leave --config out")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{name} may not be read by {}: give this user access to it",
                user()
            )
        }
        _ => format!("cannot read {name}: {error}"),
    }
}

/// How the shipped file has the setting `key`, for a message; empty if it has none.
fn example_of(key: &str) -> String {
    lines::shipped(SHIPPED, key).map_or_else(String::new, |(number, line)| {
        format!("; such as `{line}`, line {number} of the commented file that is shipped")
    })
}

/// The settings of `text`, overridden by those of the environment.
fn with_environment(text: &str) -> Result<Config> {
    Figment::from(Serialized::defaults(Config::default()))
        .merge(Toml::string(text))
        .merge(
            // Ignore other variables with this prefix: container platforms set some for each service.
            Env::prefixed(PREFIX)
                .filter(|name| name.as_str().contains("__"))
                .split("__"),
        )
        .extract()
        .map_err(|error| Error::Usage(environment_error(&error)))
}

/// The text of a settings file, without the byte order mark that editors write.
fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String> {
    let text = String::from_utf8(bytes).ok();
    // TOML has no zero bytes; UTF-16 does.
    let text = text.filter(|text| !text.contains('\0')).ok_or_else(|| {
        let name = path.display();
        Error::Usage(format!("{name} is not text in UTF-8: save it as UTF-8"))
    })?;
    Ok(text::without_bom(&text).to_owned())
}

/// The shipped file, with every key, its default and a comment.
pub const SHIPPED: &str = include_str!("../../license-server.toml");

fn environment_error(error: &figment::Error) -> String {
    let key = error.path.join("__").to_uppercase();
    let reason = error.clone().to_string();
    let reason = reason.split(" for key ").next().unwrap_or_default();
    let example = example_of(&error.path.join(".").to_lowercase());
    format!("{PREFIX}{key} in the environment: {reason}{example}")
}

/// The environment variable that sets `key`, if it is set.
fn variable_for(key: &str) -> Option<String> {
    let variable = format!("{PREFIX}{}", key.replace('.', "__").to_uppercase());
    std::env::var_os(&variable).map(|_| variable)
}

/// The operating system's user who ran the command, also behind `sudo`; for the audit log.
pub fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(std::env::var_os);
    let named = named.and_then(|name| name.into_string().ok());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// The language of the shell, from `LC_ALL`, `LC_MESSAGES` or `LANG`; English if it is another one.
pub fn shell_language() -> Language {
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|locale| !locale.is_empty());
    let language = locale.and_then(|locale| Language::of_locale(&locale.to_string_lossy()));
    language.unwrap_or(Language::En)
}

/// The path of this executable.
///
/// # Errors
/// If the operating system cannot provide it.
pub fn program() -> Result<PathBuf> {
    std::env::current_exe().doing("find this program")
}

/// The host name of this machine; `None` if it is empty.
///
/// # Errors
/// If it is not UTF-8.
pub fn hostname() -> Result<Option<String>> {
    let name = rustix::system::uname();
    Ok(Some(
        name.nodename()
            .to_str()
            .doing("read the host name")?
            .to_owned(),
    )
    .filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path)).map_err(|error| {
            assert!(matches!(error, Error::Usage(_)));
            error
                .to_string()
                .replace(&path.display().to_string(), "t.toml")
        })
    }

    #[test]
    fn the_shipped_file_is_the_defaults_and_names_every_key() {
        let shipped: toml::Table = toml::from_str(SHIPPED).unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            for (key, value) in keys.as_table().unwrap() {
                assert_eq!(shipped[section].get(key), Some(value), "[{section}] {key}");
            }
        }
        // Keys without a default cannot have a value in the file: they appear in comments.
        for key in [
            "public_url",
            "default_language",
            "certificate",
            "key",
            "contact",
            "directory",
            "directory_root",
            "extra_root",
            "passphrase_file",
        ] {
            assert!(SHIPPED.contains(&format!("#{key} = ")), "{key}");
        }
        assert!(load_text(SHIPPED).is_ok());
    }

    #[test]
    fn only_an_installed_executable_reads_the_file_in_etc() {
        for (program, installed) in [
            ("/usr/bin/license-server", true),
            ("/usr/local/bin/license-server", true),
            ("/usr/bin/other/license-server", false),
            (
                "/home/ada/license-server/target/release/license-server",
                false,
            ),
            ("/", false),
        ] {
            assert_eq!(
                is_in_installed_folder(Path::new(program)),
                installed,
                "{program}"
            );
        }
    }

    #[test]
    fn wrong_settings_are_refused_with_file_line_and_reason() {
        for (text, location, reason) in [
            (
                "[server]\nport = 8443\nprot = 1\n",
                "t.toml:3: ",
                "unknown field `prot`",
            ),
            ("\n[serwer]\n", "t.toml:2: ", "unknown field `serwer`"),
            ("[server]\nport = \"x\"\n", "t.toml:2: ", "invalid type"),
            (
                "[server]\n\n# a comment\nport = 70000\n",
                "t.toml:4: ",
                "70000",
            ),
            ("[server]\nport = 0\n", "t.toml:2: ", "server.port"),
            (
                "[server]\naddress = \"localhost\"\n",
                "t.toml:2: ",
                "IP address",
            ),
            ("[server\n", "t.toml:1: ", ""),
            ("[tls]\nmode = \"magic\"\n", "t.toml:2: ", "magic"),
            ("[tls]\nmode = \"files\"\n", "t.toml:2: ", "tls.certificate"),
            (
                "[tls]\nmode = \"off\"\n[server]\naddress = \"0.0.0.0\"\n",
                "t.toml:2: ",
                "tls.mode",
            ),
            (
                "[sessions]\ncleanup_interval = 0\n",
                "t.toml:2: ",
                "sessions.cleanup_interval",
            ),
            (
                "[sessions]\nauto_activate = true\nhistory_per_day = 9\n",
                "t.toml:3: ",
                "sessions.history_per_day",
            ),
            (
                "[sessions]\nstarts_burst = 0\n",
                "t.toml:2: ",
                "sessions.starts_burst",
            ),
            (
                "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]\n",
                "t.toml:2: ",
                "",
            ),
            (
                "[database]\nsynchronous = \"sometimes\"\n",
                "t.toml:2: ",
                "sometimes",
            ),
            (
                "[server]\npublic_url = \"licenses.example\"\n",
                "t.toml:2: ",
                "https://",
            ),
        ] {
            let message = load_text(text).unwrap_err();
            assert!(
                message.starts_with(location) && message.contains(reason),
                "{text:?}: {message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn a_wrong_setting_is_shown_in_its_right_form_and_where_the_commented_file_has_it() {
        for (text, location, reason) in [
            (
                "[server]\nport = \"x\"\n",
                "t.toml:2: ",
                "; such as `port = 8443`, line 9 of the commented file",
            ),
            (
                "[panel]\nidle_minutes = 0\n",
                "t.toml:2: ",
                "must be 1..10080; such as `idle_minutes = 60`, line ",
            ),
        ] {
            let message = load_text(text).unwrap_err();
            assert!(
                message.starts_with(location) && message.contains(reason),
                "{text:?}: {message}"
            );
        }
    }

    #[test]
    fn settings_that_acme_cannot_work_with_are_refused() {
        for (text, location, reason) in [
            (
                "[tls]\nmode = \"acme\"\n",
                "t.toml:2: ",
                "needs tls.domains",
            ),
            (
                "[tls]\nmode = \"acme\"\ndomains = [\"a.example\", \"192.0.2.1\"]\n",
                "t.toml:3: ",
                "no addresses",
            ),
            (
                "[tls]\nmode = \"acme\"\ndomains = [\"*.example.org\"]\n",
                "t.toml:3: ",
                "wildcards",
            ),
            (
                "[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\ncontact = \"you@a.example\"\n",
                "t.toml:4: ",
                "mailto:",
            ),
            (
                "[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\ndirectory = \"http://b.example/\"\n",
                "t.toml:4: ",
                "https://",
            ),
            (
                "[server]\nport = 443\n[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\n",
                "t.toml:1: ",
                "Let's Encrypt must reach it",
            ),
            (
                "[server]\naddress = \"::\"\nport = 80\n[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\n",
                "t.toml:4: ",
                "tls.http_port",
            ),
            (
                "[server]\naddress = \"::\"\npublic_url = \"https://b.example\"\n[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\n",
                "t.toml:3: ",
                "one of tls.domains",
            ),
        ] {
            let message = load_text(text).unwrap_err();
            assert!(
                message.starts_with(location) && message.contains(reason),
                "{text:?}: {message}"
            );
        }
    }

    #[test]
    fn acme_settings_give_the_names_and_the_public_url() {
        let text = "[server]\naddress = \"::\"\n[tls]\nmode = \"acme\"\ndomains = [\"B\u{fc}cher.example\", \"b.example\", \"B.example\"]\n";
        let settings = load_text(text).unwrap();
        assert_eq!(settings.tls.names(), ["xn--bcher-kva.example", "b.example"]);
        let url = settings.public_url();
        assert_eq!(url.as_deref(), Some("https://xn--bcher-kva.example:8443"));
        assert!(settings.tls.is_lets_encrypt());
        let other_authority = "[tls]\nmode = \"acme\"\ndomains = [\"a.example\"]\ndirectory = \"https://ca.example:14000/dir\"\n";
        assert!(!load_text(other_authority).unwrap().tls.is_lets_encrypt());
    }

    #[test]
    fn a_settings_file_is_read_whatever_editor_wrote_it() {
        let settings = load_text("\u{feff}[server]\r\nport = 8444\r\n").unwrap();
        assert_eq!(settings.server.port, 8444);
        let message = load_text("\u{feff}[server]\r\nprot = 1\r\n").unwrap_err();
        assert!(message.starts_with("t.toml:2: "), "{message}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let utf16: Vec<u8> = "[server]\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [
            utf16.clone(),
            [&[0xff, 0xfe], &utf16[..]].concat(),
            b"# gr\xfcn\n".to_vec(),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = load(Some(&path)).unwrap_err().to_string();
            assert!(message.contains("save it as UTF-8"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_that_the_command_line_names_is_refused() {
        let message = load(Some(Path::new("/nowhere/at-all.toml")))
            .unwrap_err()
            .to_string();
        assert!(message.contains("/nowhere/at-all.toml"), "{message}");
    }
}
