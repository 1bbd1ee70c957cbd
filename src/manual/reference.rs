//! The parts of pages that are made from elsewhere, as Markdown: the list of settings, from the file that documents them.

use super::markdown::escape;
use crate::config::Language;

/// What begins a block of code that is replaced in the panel; its text is for those who read the file.
const GENERATED: &str = "```generated ";

/// `text` with the blocks that `part` knows by name replaced.
pub(super) fn fill(text: &str, part: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line.strip_prefix(GENERATED).and_then(&part) {
            Some(generated) => {
                filled.push_str(&generated);
                let _block = lines.by_ref().find(|line| *line == "```");
            }
            None => filled.push_str(line),
        }
        filled.push('\n');
    }
    filled
}

/// Keys that stand together, with the comment above them.
#[derive(Default)]
struct Group {
    comment: String,
    /// As in the file: `port = 8443`, or `#key = …` for a key without a default.
    keys: Vec<String>,
}

impl Group {
    fn to_markdown(&self, language: Language) -> String {
        let unset = match language {
            Language::De => "nicht gesetzt, zum Beispiel",
            Language::En => "not set, for example",
        };
        let keys = self.keys.iter().map(|line| match line.strip_prefix('#') {
            Some(example) => format!("`{}` ({unset} `{example}`)", key_of(example)),
            None => format!("`{line}`"),
        });
        let keys = keys.collect::<Vec<_>>().join(", ");
        format!("- {keys}\n\n  {}\n", escape(&self.comment))
    }
}

fn key_of(line: &str) -> &str {
    line.split(" = ").next().unwrap_or(line)
}

/// The settings of `shipped`, a file in TOML with a comment above each key or group of keys.
pub(super) fn settings(shipped: &str, language: Language) -> String {
    let mut markdown = String::new();
    let mut group = Group::default();
    for line in shipped.lines() {
        let comment = line.strip_prefix("# ").map(str::trim_start);
        let ends = !group.keys.is_empty() && (comment.is_some() || line.is_empty());
        if ends || line.starts_with('[') {
            // What is above the first section is about the file.
            if !group.keys.is_empty() {
                markdown.push_str(&group.to_markdown(language));
            }
            group = Group::default();
        }
        match comment {
            Some(words) if group.comment.is_empty() => words.clone_into(&mut group.comment),
            Some(words) => group.comment = format!("{} {words}", group.comment),
            None if line.starts_with('[') => markdown.extend(["\n## ", line, "\n\n"]),
            None if !line.is_empty() => group.keys.push(line.to_owned()),
            None => {}
        }
    }
    if !group.keys.is_empty() {
        markdown.push_str(&group.to_markdown(language));
    }
    markdown
}

/// The list of JSON documents, each on its line of `text` as `command: members`.
pub(super) fn documents(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let lines = lines.map(|(command, members)| format!("- `{command}`: `{members}`\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SHIPPED;

    #[test]
    fn settings_are_listed_with_their_comments() {
        let text = "# About the file.\n\n[a]\n# One and\n# <two>.\nx = 1\n#y = \"z\"\nnone = 0\n\n[b]\n# More.\nz = [\"1*\"]\n";
        let expected = "\n## [a]\n\n- `x = 1`, `y` (not set, for example `y = \"z\"`), `none = 0`\n\n  One and \\<two>.\n\
                        \n## [b]\n\n- `z = [\"1*\"]`\n\n  More.\n";
        assert_eq!(settings(text, Language::En), expected);
    }

    #[test]
    fn every_key_of_the_shipped_file_is_listed() {
        let markdown = settings(SHIPPED, Language::De);
        let table: toml::Table = toml::from_str(SHIPPED).unwrap();
        for (section, keys) in &table {
            assert!(markdown.contains(&format!("## [{section}]")), "{section}");
            for key in keys.as_table().unwrap().keys() {
                assert!(markdown.contains(&format!("`{key} = ")), "{key}");
            }
        }
        let listed = markdown.matches(" = ").count();
        let in_file = SHIPPED
            .lines()
            .filter(|line| line.contains(" = ") && !line.starts_with("# "))
            .count();
        assert_eq!(listed, in_file);
    }

    #[test]
    fn only_known_blocks_are_replaced() {
        let part = |name: &str| (name == "a").then(|| "A".to_owned());
        let text = "x\n```generated a\n1\n2\n```\n```generated b\n3\n```\n";
        assert_eq!(fill(text, part), "x\nA\n```generated b\n3\n```\n");
    }
}
