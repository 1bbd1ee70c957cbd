//! Whether every action of the audit log has a text, and every module with entries a filter.

use std::collections::BTreeSet;
use std::fs;

use crate::{CORE, files, root};

#[test]
fn every_action_of_the_audit_log_has_a_text_in_both_languages() {
    let source: String = files("src", "rs").into_values().collect();
    let texts = files("assets/i18n", "toml");
    let quoted = |rest: &str| rest.split('"').next().unwrap().to_owned();
    let actions: BTreeSet<String> = source
        .split("action: \"")
        .skip(1)
        .map(quoted)
        .filter(|action| action.contains('.'))
        .collect();
    for (path, text) in &texts {
        for action in &actions {
            let line = format!("\n{} = ", action.replace('.', "_"));
            assert!(
                text.contains(&line),
                "{} has no text for {action}",
                path.display()
            );
        }
    }
    assert!(actions.len() > 5, "the test searches for the wrong strings");
}

/// Earlier names of modules, which appear in actions of existing audit logs.
const OLD_MODULE_NAMES: &[&str] = &["keys", "client_config"];

#[test]
fn every_module_with_audit_entries_has_a_filter() {
    let source: String = files("src", "rs").into_values().collect();
    let audited: BTreeSet<&str> = source
        .split('"')
        .filter_map(|quoted| {
            let (module, action) = quoted.split_once('.')?;
            let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            ((CORE.contains(&module) || OLD_MODULE_NAMES.contains(&module))
                && !action.is_empty()
                && word(action))
            .then_some(module)
        })
        .collect();
    let languages = files("assets/i18n", "toml");
    let page = fs::read_to_string(root().join("src/audit/panel.rs")).unwrap();
    let filters = page.split("const MODULES: &[&str] = &[").nth(1).unwrap();
    let filters: BTreeSet<&str> = filters.split("];").next().unwrap().split('"').collect();
    let mut violations = Vec::new();
    for text in languages.values() {
        let actions = text.split("\n[actions]\n").nth(1).unwrap();
        let actions = actions.split("\n[").next().unwrap();
        for module in &audited {
            let has_action = actions
                .lines()
                .any(|line| line.starts_with(&format!("{module}_")));
            if has_action && !filters.contains(module) {
                violations.push(format!(
                    "the page of the audit log cannot be filtered by {module}"
                ));
            }
            if filters.contains(module) && !text.contains(&format!("\nsection_{module} = ")) {
                violations.push(format!("a language has no name for {module}"));
            }
        }
    }
    assert!(audited.len() > 8, "the test searches for the wrong strings");
    assert!(violations.is_empty(), "{violations:#?}");
}
