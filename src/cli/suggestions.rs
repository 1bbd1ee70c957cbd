//! What a mistyped command may have meant. A wrong suggestion does harm: who types `restart` must not be led to `restore`.

use clap::error::{ContextKind, ContextValue, Error};

/// What operators type to start and stop the server, which is not done by commands.
const OF_THE_SERVICE: &[&str] = &["restart", "start", "stop", "status", "reload"];

/// The error, with suggestions only for what differs from the typed word by one letter.
pub(super) fn without_wrong_ones(mut error: Error) -> Error {
    for (typed, suggested) in [
        (
            ContextKind::InvalidSubcommand,
            ContextKind::SuggestedSubcommand,
        ),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ] {
        let Some(ContextValue::String(word)) = error.get(typed).cloned() else {
            continue;
        };
        if let Some(words) = error.remove(suggested) {
            let near = near(&word, &words);
            if !near.is_empty() {
                error.insert(suggested, ContextValue::Strings(near));
            }
        }
        if typed == ContextKind::InvalidSubcommand && OF_THE_SERVICE.contains(&word.as_str()) {
            let tip = format!(
                "the server is started and stopped by its service (`systemctl {word} license-server`); `serve` runs it here"
            );
            let tips = vec![tip.into()];
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

/// Those of the suggested words that differ from `typed` by one letter.
fn near(typed: &str, suggested: &ContextValue) -> Vec<String> {
    let words = match suggested {
        ContextValue::String(word) => std::slice::from_ref(word),
        ContextValue::Strings(words) => words.as_slice(),
        _ => &[],
    };
    let words = words.iter().filter(|word| differ_by_one(typed, word));
    words.cloned().collect()
}

/// Whether one letter was added, left out, replaced or exchanged with its neighbor.
fn differ_by_one(typed: &str, word: &str) -> bool {
    let (typed, word): (Vec<char>, Vec<char>) = (typed.chars().collect(), word.chars().collect());
    let same = typed.iter().zip(&word).take_while(|(a, b)| a == b).count();
    let (typed, word) = (
        typed.get(same..).unwrap_or(&[]),
        word.get(same..).unwrap_or(&[]),
    );
    match (typed, word) {
        ([], rest) | (rest, []) => rest.len() <= 1,
        ([a, b, typed @ ..], [c, d, word @ ..]) if a == d && b == c => typed == word,
        ([_, typed @ ..], [_, word @ ..]) if typed == word => true,
        ([_, rest @ ..], word) if rest == word => true,
        (typed, [_, rest @ ..]) => rest == typed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_differ_by_one_letter_are_suggested() {
        for (typed, word) in [
            ("licence", "license"),
            ("sesion", "session"),
            ("sessionn", "session"),
            ("sessoin", "session"),
            ("liist", "list"),
            ("list", "list"),
        ] {
            assert!(differ_by_one(typed, word), "{typed} {word}");
        }
        for (typed, word) in [
            ("restart", "restore"),
            ("remove", "revoke"),
            ("start", "restart"),
            ("", "ab"),
        ] {
            assert!(!differ_by_one(typed, word), "{typed} {word}");
        }
    }
}
