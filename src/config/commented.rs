//! The settings in force, as a settings file with every comment.

use super::{Config, SHIPPED};
use crate::error::{Doing, Result};

/// What takes the place of the first lines of the shipped file, which are about its defaults.
const HEAD: &str = "# license-server: the settings in force, from the settings file and the environment. A value that is not the\n\
                    # default has the default beside it.\n";

/// The shipped file, in which each key has the value in force. A key without a value stays a comment.
///
/// # Errors
/// If the settings cannot be written as TOML.
pub fn commented(settings: &Config) -> Result<String> {
    let in_force = toml::Table::try_from(settings).doing("write the settings")?;
    let mut text = HEAD.to_owned();
    let mut section = "";
    let below_head = SHIPPED.lines().skip_while(|line| !line.is_empty());
    for line in below_head {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let key = key_of(line);
        let value = key.and_then(|key| in_force.get(section)?.get(key));
        match (key, value) {
            (Some(key), Some(value)) => text.push_str(&with_value(line, key, value)),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

/// The key of a line such as `port = 8443` or `#public_url = …`.
fn key_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix('#').unwrap_or(line);
    let (key, _) = line.split_once(" = ")?;
    let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_key.then_some(key)
}

fn with_value(line: &str, key: &str, value: &toml::Value) -> String {
    let with_value = format!("{key} = {value}");
    match line.split_once(" = ") {
        Some((_, default)) if with_value != line && !line.starts_with('#') => {
            format!("{with_value} # default: {default}")
        }
        _ => with_value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_defaults_are_the_shipped_file() {
        let text = commented(&Config::default()).unwrap();
        let below_head = |text: &str| text.split_once("\n\n").unwrap().1.to_owned();
        assert_eq!(below_head(&text), below_head(SHIPPED));
    }

    #[test]
    fn the_file_has_the_values_in_force_and_can_be_used() {
        let settings = read(
            "[server]\nport = 9443\npublic_url = \"https://a.example\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
             [log]\nlevel = \"debug\"\n",
        );
        let text = commented(&settings).unwrap();
        for line in [
            "\nport = 9443 # default: 8443\n",
            "\npublic_url = \"https://a.example\"\n",
            "\ntrusted_proxies = [\"10.0.0.0/8\"] # default: []\n",
            "\nlevel = \"debug\" # default: \"info\"\n",
            "\n#passphrase_file = ",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let table = |settings: &Config| toml::Table::try_from(settings).unwrap();
        assert_eq!(table(&read(&text)), table(&settings));
    }
}
