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

#[cfg(test)]
mod tests {
    use super::*;

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
