//! Markup that somebody types is text on every page.

use std::fmt::Write as _;

use serde_json::json;

use crate::browser::HOME;
use crate::driver::Chrome;
use crate::scene::{self, expect_no_complaint, pages};
use crate::shop::{self, MARKUP};

/// Fills every writable field of one of the page's forms, but what is to be chosen from; how many forms there are.
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

/// Whether anything of the markup became more than text.
const ALIVE: &str = r#"
const found = [...document.querySelectorAll('img, script:not([src^="/lizenzserver/panel.js"]), [onerror]')].map((e) => e.outerHTML.slice(0, 90));
if (document.documentElement.outerHTML.includes('49</')) found.push('49');
return found;
"#;

fn expect_text(chrome: &Chrome, what: &str, wrong: &mut String) {
    let alive = chrome.script(ALIVE, &json!([]));
    if alive != json!([]) {
        writeln!(wrong, "{what}: {alive}").unwrap();
    }
    expect_no_complaint(chrome);
}

#[test]
fn markup_in_every_writable_field_is_text_on_every_page() {
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let shop = shop::open(&server, MARKUP);
    let mut wrong = String::new();
    let paths = pages(&shop, &mut wrong);
    // Once with everything wrong, once with only what is free.
    for gentle in [false, true] {
        for path in &paths {
            for number in 0.. {
                chrome.open_page(path);
                let forms = chrome.script(FILL, &json!([MARKUP, gentle, number]));
                let forms = forms.as_u64().unwrap();
                if number < forms {
                    chrome.until("!window.leaving && document.readyState === 'complete'");
                    let what = format!("{path}, form {number} filled, gentle={gentle}");
                    expect_text(&chrome, &what, &mut wrong);
                }
                if number + 1 >= forms {
                    break;
                }
            }
        }
    }
    // What was kept of it is text, too.
    for path in &paths {
        chrome.open_page(path);
        expect_text(&chrome, path, &mut wrong);
    }
    chrome.go(&format!(
        "{HOME}/customers?q={}",
        "%3Cimg+src%3Dx+onerror%3Dalert(1)%3E"
    ));
    expect_text(&chrome, "search", &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}
