//! Line numbers in a settings file, for error messages.

/// The line, counted from 1, of the byte at `offset`.
pub(super) fn of_offset(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// The line of `section.key`; that of the section if the key is absent, otherwise the first.
pub(super) fn of_key(text: &str, path: &str) -> usize {
    let (section, key) = path.split_once('.').unwrap_or((path, ""));
    let mut in_section = false;
    let mut best = 1;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            in_section = name.trim() == section;
            if in_section {
                best = number;
            }
        } else if in_section
            && line
                .split('=')
                .next()
                .is_some_and(|name| name.trim() == key)
        {
            return number;
        }
    }
    best
}

/// The setting on a line, counted from 1, as `section.key`; `None` if it has none.
pub(super) fn key_on(text: &str, number: usize) -> Option<String> {
    let mut section = "";
    for line in text.lines().take(number.saturating_sub(1)) {
        let head = line.trim().strip_prefix('[');
        section = head
            .and_then(|rest| rest.split(']').next())
            .map_or(section, str::trim);
    }
    let (key, _) = text.lines().nth(number.checked_sub(1)?)?.split_once('=')?;
    Some(format!("{section}.{}", key.trim()))
}

/// The line of `section.key` and its number in a file with every key, of which some are comments; `None` if it has none.
pub(super) fn shipped<'a>(text: &'a str, path: &str) -> Option<(usize, &'a str)> {
    let (section, key) = path.split_once('.')?;
    let mut in_section = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(name) = line.strip_prefix('[') {
            in_section = name.trim_end_matches(']') == section;
        }
        let name = line.trim_start_matches('#').split(" = ").next();
        if in_section && name == Some(key) {
            return Some((number, line.trim_start_matches('#')));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_file_leads_to_the_line_of_the_shipped_one() {
        let text = "[a]\nx = 1\n[b]\n# y = 3\n y=2\n";
        assert_eq!(key_on(text, 5).as_deref(), Some("b.y"));
        assert_eq!(key_on(text, 2).as_deref(), Some("a.x"));
        assert!(
            key_on(text, 3).is_none() && key_on(text, 9).is_none() && key_on(text, 0).is_none()
        );
        let shipped_file = "[a]\ny = 9\n[b]\n#y = 1\n";
        assert_eq!(shipped(shipped_file, "b.y"), Some((4, "y = 1")));
        assert_eq!(shipped(shipped_file, "b.z"), None);
    }

    #[test]
    fn a_key_is_found_in_its_own_section() {
        let text = "# top\n[a]\nx = 1\n[b]\ny = 2\nx = 3\n";
        assert_eq!(of_key(text, "a.x"), 3);
        assert_eq!(of_key(text, "b.x"), 6);
        assert_eq!(of_key(text, "b.z"), 4);
        assert_eq!(of_key(text, "c.z"), 1);
        assert_eq!(of_offset(text, 6), 2);
    }
}
