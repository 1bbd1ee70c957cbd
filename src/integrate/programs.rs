//! Files with which a program runs under a license, one for each programming language.

use serde_json::Value;

/// A programming language for which there is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    JavaScript,
    CSharp,
    Java,
    Rust,
    Cpp,
}

/// The values that are filled into a file.
#[derive(Clone, Debug)]
pub(super) struct ProgramParameters<'a> {
    /// `https://…`, without a trailing slash.
    pub(super) url: &'a str,
    pub(super) api_key: &'a str,
    pub(super) product: &'a str,
    pub(super) version: &'a str,
    /// Whether the program has to trust the file `ca.pem` beside it, instead of the authorities that the system trusts.
    pub(super) own_authority: bool,
    /// Whether a device may try the product without a key.
    pub(super) trials: bool,
    /// The public keys that verify responses, the current and the next one, each with its key id before it; `None` before
    /// the first start of the server.
    pub(super) keys: Option<[String; 4]>,
}

/// The placeholders of [`ProgramParameters::keys`].
const KEYS: [&str; 4] = [
    "CURRENT-KEY-ID",
    "CURRENT-PUBLIC-KEY",
    "NEXT-KEY-ID",
    "NEXT-PUBLIC-KEY",
];

/// What a file says when it asks for the key; left out for a product without trials.
const TRIAL_PROMPT: &str = " (empty for a trial)";

impl Language {
    /// Every language, in the order of the page.
    pub(super) const ALL: [Self; 6] = [
        Self::Python,
        Self::JavaScript,
        Self::CSharp,
        Self::Java,
        Self::Rust,
        Self::Cpp,
    ];

    /// The language of an address; the first if there is none of this name.
    pub(super) fn from_name(name: Option<&str>) -> Self {
        let [first, ..] = Self::ALL;
        let mut all = Self::ALL.into_iter();
        all.find(|language| Some(language.as_str()) == name)
            .unwrap_or(first)
    }

    /// Its name in addresses, and the suffix of the keys of its texts.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Java => "java",
            Self::CSharp => "csharp",
            Self::Rust => "rust",
            Self::Cpp => "cpp",
        }
    }

    /// Its name for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::Java => "Java",
            Self::CSharp => "C#",
            Self::Rust => "Rust",
            Self::Cpp => "C++",
        }
    }

    /// The name of the file.
    pub(super) const fn file_name(self) -> &'static str {
        match self {
            Self::Python => "license.py",
            Self::JavaScript => "license.cjs",
            Self::Java => "License.java",
            Self::CSharp => "License.cs",
            Self::Rust => "license.rs",
            Self::Cpp => "license.cpp",
        }
    }

    /// The commands that run the file by itself.
    pub(super) const fn commands(self) -> &'static str {
        match self {
            Self::Python => "python3 license.py",
            Self::JavaScript => "node license.cjs",
            Self::Java => "javac License.java\njava License",
            Self::CSharp => {
                "dotnet new console -o licensed\ncp License.cs licensed/Program.cs\n\
                 dotnet build licensed -o licensed/out\ncp ca.pem licensed/out\nlicensed/out/licensed"
            }
            Self::Rust => {
                "cargo new licensed\ncp license.rs licensed/src/main.rs\ncd licensed\n\
                 cargo add ureq --no-default-features --features rustls\n\
                 cargo add ed25519-dalek base64 serde_json sha2\ncargo build\n\
                 cp ../ca.pem target/debug\ntarget/debug/licensed"
            }
            Self::Cpp => {
                "c++ -std=c++17 license.cpp -o license -lcurl -lcrypto -pthread\n./license"
            }
        }
    }

    /// A further file that shows how a program with windows or a project uses it, with its name; `None` if the end of the
    /// file is example enough.
    pub(super) const fn example(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::JavaScript => Some((
                "main.cjs",
                include_str!("../../assets/clients/electron.cjs"),
            )),
            Self::CSharp => Some((
                "App.xaml.cs",
                include_str!("../../assets/clients/App.xaml.cs"),
            )),
            Self::Python | Self::Java | Self::Rust | Self::Cpp => None,
        }
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Python => include_str!("../../assets/clients/license.py"),
            Self::JavaScript => include_str!("../../assets/clients/license.cjs"),
            Self::Java => include_str!("../../assets/clients/License.java"),
            Self::CSharp => include_str!("../../assets/clients/License.cs"),
            Self::Rust => include_str!("../../assets/clients/license.rs"),
            Self::Cpp => include_str!("../../assets/clients/license.cpp"),
        }
    }

    /// A string literal. What JSON escapes is written alike in all of these languages but Rust.
    fn literal(self, text: &str) -> String {
        let literal = Value::from(text).to_string();
        match self {
            Self::Python | Self::JavaScript => literal,
            // Their compilers may take the file for one in the system's encoding.
            Self::Java | Self::CSharp => literal.chars().map(escaped_utf16).collect(),
            Self::Rust => format!("{text:?}"),
            Self::Cpp => literal.bytes().map(escaped_octal).collect(),
        }
    }

    /// The text of the file, with the known values in place of the constants at its head.
    pub(super) fn filled(self, parameters: &ProgramParameters<'_>) -> String {
        let authority = if parameters.own_authority {
            "ca.pem"
        } else {
            ""
        };
        let mut values = vec![
            ("https://licenses.example.org", parameters.url.to_owned()),
            ("YOUR-API-KEY", parameters.api_key.to_owned()),
            ("Example product", parameters.product.to_owned()),
            ("1.0.0", parameters.version.to_owned()),
            ("ca.pem", authority.to_owned()),
        ];
        if let Some(keys) = &parameters.keys {
            values.extend(KEYS.into_iter().zip(keys.iter().cloned()));
        }
        let template = if parameters.trials {
            self.template().to_owned()
        } else {
            self.template().replace(TRIAL_PROMPT, "")
        };
        let fill = |text: String, (placeholder, value): &(&str, String)| {
            text.replacen(&format!("\"{placeholder}\""), &self.literal(value), 1)
        };
        values.iter().fold(template, fill)
    }
}

/// A character as it is if it is ASCII, else as `\uXXXX`.
fn escaped_utf16(character: char) -> String {
    if character.is_ascii() {
        return character.to_string();
    }
    match character.encode_utf16(&mut [0; 2]) {
        [unit] => format!("\\u{unit:04x}"),
        [high, low] => format!("\\u{high:04x}\\u{low:04x}"),
        _ => String::new(),
    }
}

/// A byte as it is if it is ASCII, else as `\nnn`.
fn escaped_octal(byte: u8) -> String {
    if byte.is_ascii() {
        return char::from(byte).to_string();
    }
    format!("\\{byte:03o}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_each_placeholder_once_as_a_whole_string() {
        for language in Language::ALL {
            for placeholder in [
                "https://licenses.example.org",
                "YOUR-API-KEY",
                "Example product",
                "1.0.0",
                "ca.pem",
            ]
            .iter()
            .chain(&KEYS)
            {
                let found = language
                    .template()
                    .matches(&format!("\"{placeholder}\""))
                    .count();
                assert_eq!(found, 1, "{placeholder} in {}", language.file_name());
            }
        }
    }

    #[test]
    fn every_file_offers_a_trial_in_one_place() {
        for language in Language::ALL {
            let found = language.template().matches(TRIAL_PROMPT).count();
            assert_eq!(found, 1, "{}", language.file_name());
        }
    }

    #[test]
    fn every_file_is_short_enough_to_be_read_before_it_is_copied() {
        for language in Language::ALL {
            let lines = language.template().lines();
            let written = lines.clone().filter(|line| !line.trim().is_empty()).count();
            let (file, longest) = (language.file_name(), lines.map(str::len).max());
            let limit = match language {
                Language::Python | Language::JavaScript => 250,
                Language::Rust => 346,
                // They are longer where the standard library has no JSON or no Ed25519.
                Language::CSharp => 414,
                Language::Java => 450,
                Language::Cpp => 525,
            };
            assert!(written <= limit, "{file} has {written} lines");
            assert!(longest <= Some(120), "{file}: {longest:?}");
        }
    }

    #[test]
    fn a_name_with_quotes_and_other_scripts_is_filled_in_as_one_string() {
        let name = "Stück \"Zwei\" \\ 日本";
        let parameters = ProgramParameters {
            url: "https://example.org",
            api_key: "lsk_1",
            product: name,
            version: "1.2.0",
            own_authority: false,
            trials: false,
            keys: None,
        };
        let plain = r#"PRODUCT = "Stück \"Zwei\" \\ 日本""#;
        let ascii = r#"PRODUCT = "St\u00fcck \"Zwei\" \\ \u65e5\u672c""#;
        let csharp = r#"Product = "St\u00fcck \"Zwei\" \\ \u65e5\u672c""#;
        let rust = r#"PRODUCT: &str = "Stück \"Zwei\" \\ 日本""#;
        for (language, line) in [
            (Language::Python, plain),
            (Language::JavaScript, plain),
            (Language::Rust, rust),
            (Language::Java, ascii),
            (Language::CSharp, csharp),
            (
                Language::Cpp,
                r#"product = "St\303\274ck \"Zwei\" \\ \346\227\245\346\234\254""#,
            ),
        ] {
            let text = language.filled(&parameters);
            assert!(text.contains(line), "{text}");
            let authority = [
                "CA_FILE = \"\"",
                "CA_FILE: &str = \"\"",
                "CaFile = \"\"",
                "ca_file = \"\"",
            ];
            assert!(authority.iter().any(|line| text.contains(line)), "{text}");
        }
    }
}
