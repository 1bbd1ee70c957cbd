//! Markup in input is shown as text on every page.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::browser::HOME;
use crate::driver::Chrome;
use crate::setup::{self, expect_no_page_errors, pages};
use crate::shop::{self, MARKUP};

/// Fills every text field of one of the page's forms and submits it; returns the number of forms.
const FILL: &str = r#"
const all = [...document.querySelectorAll('main form[method="post"]')].filter((f) => f.querySelector('input:not([type=hidden]), textarea'));
const form = all[arguments[2]];
if (!form) return 0;
window.leaving = true;
form.noValidate = true;
for (const e of form.querySelectorAll('input, textarea')) {
  if (['hidden', 'checkbox', 'radio', 'submit'].includes(e.type)) continue;
  e.removeAttribute('maxlength');
  if (['number', 'date', 'datetime-local', 'email', 'url', 'password'].includes(e.type)) e.type = 'text';
  if (arguments[1] && e.value) continue;
  e.value = arguments[0];
}
form.submit();
return all.length;
"#;

/// Finds elements that the markup created.
const FIND_MARKUP: &str = r#"
const found = [...document.querySelectorAll('img, script:not([src^="/lizenzserver/panel.js"]), [onerror]')].map((e) => e.outerHTML.slice(0, 90));
if (document.documentElement.outerHTML.includes('100009')) found.push('7*14287');
return found;
"#;

fn expect_no_markup(chrome: &Chrome, what: &str, problems: &mut String) {
    let found = chrome.script(FIND_MARKUP, &json!([]));
    if found != json!([]) {
        writeln!(problems, "{what}: {found}").unwrap();
    }
    expect_no_page_errors(chrome);
}

/// Fills and submits each form of a page, or its empty fields only; returns how many forms it has.
fn fill_forms(chrome: &Chrome, path: &str, only_empty: &Value, problems: &mut String) -> u64 {
    for number in 0.. {
        chrome.open_page(path);
        let forms = chrome.script(FILL, &json!([MARKUP, only_empty, number]));
        let forms = forms.as_u64().unwrap();
        if number < forms {
            chrome.until("!window.leaving && document.readyState === 'complete'");
            let what = format!("{path}, form {number} filled, gentle={only_empty}");
            expect_no_markup(chrome, &what, problems);
        }
        if number + 1 >= forms {
            return forms;
        }
    }
    0
}

#[test]
fn markup_in_every_writable_field_is_text_on_every_page() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let shop = shop::add_sample_data(&server, MARKUP);
    let mut problems = String::new();
    let paths = pages(&shop, &mut problems);
    // Once with every field filled, once with only the empty ones.
    let mut with_forms = paths.clone();
    for only_empty in [false, true] {
        with_forms.retain(|path| {
            let forms = fill_forms(&chrome, path, &json!(only_empty), &mut problems);
            forms > 0
        });
    }
    // The stored input is shown as text, too.
    for path in &paths {
        chrome.open_page(path);
        expect_no_markup(&chrome, path, &mut problems);
    }
    chrome.go(&format!(
        "{HOME}/customers?q={}",
        "%3Cimg+src%3Dx+onerror%3Dalert(1)%3E"
    ));
    expect_no_markup(&chrome, "search", &mut problems);
    assert!(problems.is_empty(), "{problems}");
}
