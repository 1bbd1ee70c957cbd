//! Every page, light and dark, wide and narrow, in both languages: axe-core finds nothing, nothing sticks
//! out, and there is room for words that are a third longer.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::browser::HOME;
use crate::driver::{Chrome, skipped};
use crate::scene::{self, ELSEWHERE, NO_PAGES, OUTSIDE, pages};
use crate::shop;

/// WCAG 2.0 to 2.2, A and AA, and what axe holds for good practice.
const RULES: &[&str] = &[
    "wcag2a",
    "wcag2aa",
    "wcag21a",
    "wcag21aa",
    "wcag22a",
    "wcag22aa",
    "best-practice",
];
const WIDTHS: &[u32] = &[1280, 320];

/// What axe finds, a line a rule; in the whole page or, with a second argument, in the dialog that is open.
const CHECK: &str = "return axe.run(arguments[1] ? document.querySelector('dialog[open]') : document, \
     { runOnly: arguments[0], resultTypes: ['violations'], preload: { assets: ['media'] } })\
     .then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.target.join(' ') + ' ' \
     + n.html.slice(0, 160) + ' ' + (n.any[0] ?? n.all[0] ?? n.none[0])?.message).join(' | ')));";

/// Who sticks out of the page, or out of himself.
const CROWDED: &str = r#"
const found = [], page = document.documentElement;
const name = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + (e.className && e.className.baseVal === undefined ? '.' + e.className : '')
  + ' "' + e.textContent.trim().slice(0, 40) + '"';
if (page.scrollWidth > innerWidth) {
  const wide = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('.scroll, pre, .rail'));
  found.push('the page is ' + page.scrollWidth + ' wide: ' + wide.slice(-3).map(name).join(', '));
}
for (const e of document.querySelectorAll('button, .btn, .pill, summary, h1, h2, label, .seg a')) {
  if (!e.checkVisibility() || e.matches('.unseen') || e.closest('.unseen, .scroll, .rail')) continue;
  if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).display !== 'inline') found.push('clipped: ' + name(e));
  const box = e.getBoundingClientRect();
  if (box.right > innerWidth + 0.5 || box.left < -0.5) found.push('outside: ' + name(e));
}
return found;
"#;

/// The pseudo-language: every text a third longer.
const LENGTHEN: &str = r"
const longer = (text) => {
  const words = text.trim();
  if (!words) return text;
  let more = '', wanted = Math.ceil(words.length * 0.35);
  while (more.length < wanted) more += (more ? ' ' : '') + words.slice(0, Math.min(8, wanted - more.length)).trim() + 'x';
  return text.trimEnd() + (words.includes(' ') ? ' ' : '') + more.slice(0, wanted) + (/\s$/.test(text) ? ' ' : '');
};
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const all = [];
while (walk.nextNode()) if (!walk.currentNode.parentElement.closest('script, style, svg, textarea')) all.push(walk.currentNode);
for (const node of all) node.data = longer(node.data);
for (const e of document.querySelectorAll('[placeholder]')) e.placeholder = longer(e.placeholder);
";

/// The text of axe-core, or nothing where it is not installed.
fn axe() -> Option<String> {
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/node_modules/axe-core/axe.min.js");
    let path = std::env::var_os("AXE_CORE").map_or(installed, Into::into);
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        skipped("axe-core");
    }
    text
}

/// The numbers of the links to questions, all or one of each kind: questions about rows are alike.
const QUESTIONS: &str = "
const kinds = new Map(), links = document.querySelectorAll('a[data-dialog]');
for (const [number, a] of links.entries()) {
  const parts = a.pathname.split('/');
  const kind = arguments[0] ? number : [parts.length, parts[2], parts.at(-1)].join(' ');
  if (!kinds.has(kind)) kinds.set(kind, number);
}
return [...kinds.values()];
";

/// What of a page depends on its colours, and so has to be looked at in dark too.
const COLOURS: &[&str] = &["color-contrast", "link-in-text-block"];

/// Which looks a page gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// Every rule in light and dark, at every width.
    All,
    /// Every rule in light at every width; in dark those about colours, which are the same at every width.
    Usual,
    /// Every rule in light at the first width, and of the questions only whether their words fit: the same page in
    /// another language was looked at in every way.
    Once,
}

/// The usual looks; with `LICENSE_TEST_ROUNDS` all.
fn thorough(looks: Looks) -> Looks {
    if std::env::var_os("LICENSE_TEST_ROUNDS").is_some() {
        Looks::All
    } else {
        looks
    }
}

/// Looks at the page that is open, in every way but the language; what is wrong with it.
fn look(chrome: &Chrome, axe: &str, looks: Looks, what: &str, wrong: &mut String) {
    let everything = json!([{ "type": "tag", "values": RULES }]);
    let colours = json!([{ "type": "rule", "values": COLOURS }]);
    let open = "document.querySelectorAll('details').forEach((d) => { d.open = true; }); return typeof axe;";
    if chrome.script(open, &json!([])) == "undefined" {
        chrome.script(axe, &json!([]));
    }
    for &width in WIDTHS {
        chrome.width(width);
        let first = width == WIDTHS[0];
        for dark in [false, true] {
            let rules = match (looks, dark) {
                (Looks::All, _) | (Looks::Usual, false) => &everything,
                (Looks::Once, false) if first => &everything,
                (Looks::Usual, true) if first => &colours,
                (Looks::Usual | Looks::Once, _) => continue,
            };
            chrome.dark(dark);
            let found = chrome.script(CHECK, rules);
            tell(wrong, &format!("{what} {width} dark={dark}"), &found);
        }
        let found = chrome.script(CROWDED, &json!([]));
        tell(wrong, &format!("{what} {width}"), &found);
    }
    let questions = chrome.script(QUESTIONS, &json!([looks == Looks::All]));
    for number in questions.as_array().unwrap() {
        chrome.script(
            "document.querySelectorAll('a[data-dialog]')[arguments[0]].click();",
            &json!([number]),
        );
        chrome.until("document.querySelector('dialog[open] form')");
        if looks != Looks::Once {
            let within = json!([everything[0], looks != Looks::All]);
            let found = chrome.script(CHECK, &within);
            tell(wrong, &format!("{what}, question {number}"), &found);
        }
        let found = chrome.script(CROWDED, &json!([]));
        tell(wrong, &format!("{what}, question {number}"), &found);
        chrome.eval("document.querySelector('dialog[open]').close()");
    }
    // Last of all: it cannot be undone.
    chrome.script(LENGTHEN, &json!([]));
    for &width in WIDTHS {
        chrome.width(width);
        let found = chrome.script(CROWDED, &json!([]));
        tell(wrong, &format!("{what} {width}, longer"), &found);
    }
    chrome.dark(false);
    chrome.width(1280);
}

/// Fails when the page that is open is a barrier, or too narrow for its words; spoils its words.
pub fn expect_no_barrier(chrome: &Chrome, what: &str) {
    let Some(axe) = axe() else { return };
    let mut wrong = String::new();
    look(chrome, &axe, thorough(Looks::Usual), what, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}

fn tell(wrong: &mut String, what: &str, found: &Value) {
    for one in found.as_array().unwrap() {
        writeln!(wrong, "{what}: {}", one.as_str().unwrap()).unwrap();
    }
}

/// Opens every page that can be opened, in both languages, and looks at it.
fn look_at_all(chrome: &Chrome, axe: &str, paths: &[String], wrong: &mut String) {
    chrome.on_every_page(axe);
    for (language, looks) in [("en", Looks::Usual), ("de", Looks::Once)] {
        let looks = thorough(looks);
        for path in paths {
            chrome.cookie("lang", language);
            chrome.open_page(path);
            let there = chrome.path();
            if there != format!("{HOME}{path}") {
                writeln!(wrong, "{path} leads to {there}").unwrap();
                continue;
            }
            let shown = chrome.eval("[document.documentElement.lang, document.querySelectorAll('h1').length, !document.querySelector('main.alone .card a[href=\"/lizenzserver\"]') && Boolean(document.getElementById('main'))]");
            if shown != json!([language, 1, true]) {
                writeln!(wrong, "{path} in {language} is not the page: {shown}").unwrap();
                continue;
            }
            look(chrome, axe, looks, &format!("{path} {language}"), wrong);
            for complaint in chrome.complaints() {
                writeln!(wrong, "{path} {language}: {complaint}").unwrap();
            }
        }
    }
}

#[test]
fn no_page_is_a_barrier_or_too_narrow_for_its_words() {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let shop = shop::open(&server, "");
    let mut wrong = String::new();
    let paths = pages(&shop, &mut wrong);
    look_at_all(&chrome, &axe, &paths, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_barrier_would_be_found() {
    let Some(axe) = axe() else { return };
    let Some((_server, chrome)) = scene::stage() else {
        return;
    };
    chrome.open_page("/login");
    let spoil = "document.querySelector('label').remove(); document.querySelector('h1').style.whiteSpace = 'nowrap'; \
         document.querySelector('h1').append(' Donaudampfschifffahrt'.repeat(9));";
    chrome.script(spoil, &json!([]));
    let mut wrong = String::new();
    look(&chrome, &axe, Looks::All, "login", &mut wrong);
    assert!(wrong.contains("login 1280 dark=true: label: "), "{wrong}");
    assert!(wrong.contains("login 320: the page is "), "{wrong}");
}

#[test]
fn no_page_for_strangers_is_a_barrier_or_too_narrow_for_its_words() {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = scene::stage() else {
        return;
    };
    server.admin("ada", "owner");
    chrome.open_page("/login");
    let mut wrong = String::new();
    let paths: Vec<String> = OUTSIDE.iter().map(|path| (*path).to_owned()).collect();
    look_at_all(&chrome, &axe, &paths, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_empty_page_is_a_barrier() {
    let Some(axe) = axe() else { return };
    let Some((_server, chrome)) = scene::owner() else {
        return;
    };
    let routes = shop::routes();
    let lists = routes.iter().filter(|(method, path)| {
        method == "GET"
            && (path == "/setup/license" || !ELSEWHERE.contains(&path.as_str()))
            && !path.contains('<')
            // Forms are the same in a full shop, and were looked at there.
            && !path.ends_with("/new")
            && !path.starts_with("/profile/")
            && !NO_PAGES.contains(&path.as_str())
    });
    let lists = lists.filter(|(_, path)| !OUTSIDE.contains(&path.as_str()));
    let paths: Vec<String> = lists.map(|(_, path)| path.clone()).collect();
    let mut wrong = String::new();
    look_at_all(&chrome, &axe, &paths, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}
