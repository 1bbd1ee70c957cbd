//! Accessibility of every page, light and dark, wide and narrow, in both languages: axe-core finds nothing, nothing
//! overflows, and texts that are a third longer fit.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::browser::HOME;
use crate::driver::{Chrome, skip_for_missing_tool};
use crate::setup::{self, LOGIN_PAGES, NOT_PAGES, SKIPPED_PAGES, pages};
use crate::shop;

/// WCAG 2.0 to 2.2, A and AA, and axe's best practices.
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

/// Runs axe, with one line per violated rule, in the whole page or, with a second argument, in the open dialog.
const CHECK: &str = "return axe.run(arguments[1] ? document.querySelector('dialog[open]') : document, \
     { runOnly: arguments[0], rules: arguments[2] ?? {}, resultTypes: ['violations'], preload: { assets: ['media'] } })\
     .then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.target.join(' ') + ' ' \
     + n.html.slice(0, 160) + ' ' + (n.any[0] ?? n.all[0] ?? n.none[0])?.message).join(' | ')));";

/// Finds elements that overflow the page or themselves and, without an argument, tables wider than their frame, and
/// actions in tables out of view.
pub const OVERFLOWING: &str = r#"
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
for (const frame of document.querySelectorAll('.scroll')) {
  if (arguments[0] || !frame.checkVisibility()) continue;
  const inner = frame.getBoundingClientRect(), columns = [...frame.querySelectorAll('th[scope=col]')].map((e) => Math.round(e.offsetWidth));
  if (frame.scrollWidth > frame.clientWidth) found.push('a table of ' + frame.scrollWidth + ' in ' + frame.clientWidth + ', columns ' + columns);
  for (const e of frame.querySelectorAll('td .btn, td button, td input, th a')) {
    const box = e.getBoundingClientRect();
    if (e.checkVisibility() && (box.left < inner.left || box.right > inner.right + 0.5 || box.right > innerWidth)) found.push('out of view: ' + name(e));
  }
}
return found;
"#;

/// Makes every text a third longer, except for keys, times and names in tables, which no translation makes longer.
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
while (walk.nextNode()) if (!walk.currentNode.parentElement.closest('script, style, svg, textarea, tbody code, tbody time, tbody .clip')) all.push(walk.currentNode);
for (const node of all) node.data = longer(node.data);
for (const e of document.querySelectorAll('[placeholder]')) e.placeholder = longer(e.placeholder);
";

/// The script of axe-core; `None` if it is not installed.
fn axe() -> Option<String> {
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/node_modules/axe-core/axe.min.js");
    let path = std::env::var_os("AXE_CORE").map_or(installed, Into::into);
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        skip_for_missing_tool("axe-core");
    }
    text
}

/// The numbers of the links that open dialogs, all or one of each kind: dialogs about rows are alike.
const DIALOG_LINKS: &str = "
const kinds = new Map(), links = document.querySelectorAll('a[data-dialog]');
for (const [number, a] of links.entries()) {
  const parts = a.pathname.split('/');
  const kind = arguments[0] ? number : [parts.length, parts[2], parts.at(-1)].join(' ');
  if (!kinds.has(kind)) kinds.set(kind, number);
}
return [...kinds.values()];
";

/// The rules that depend on colors, and so have to be checked in dark too.
const COLOURS: &[&str] = &["color-contrast", "link-in-text-block"];

/// How thoroughly a page is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thoroughness {
    /// Every rule in light and dark, at every width.
    All,
    /// At the first width every rule in light and those about colors in dark; at the others, which have the same colors,
    /// every other rule.
    Usual,
    /// Every rule once, in light at the first width: the other pages have the same parts, and are checked as usual.
    Brief,
    /// Only whether the texts fit as they are: the same page was checked in the other language, which has the same
    /// elements, with longer texts too.
    Texts,
}

/// The given thoroughness; with `LICENSE_TEST_ROUNDS` always everything.
fn at_least(thoroughness: Thoroughness) -> Thoroughness {
    if std::env::var_os("LICENSE_TEST_ROUNDS").is_some() {
        Thoroughness::All
    } else {
        thoroughness
    }
}

/// Checks the open page at every width and color scheme, and appends what is wrong to `problems`.
fn check_page(
    chrome: &Chrome,
    axe: &str,
    thoroughness: Thoroughness,
    what: &str,
    problems: &mut String,
) {
    let everything = json!([{ "type": "tag", "values": RULES }]);
    let colours = json!([{ "type": "rule", "values": COLOURS }]);
    let off = COLOURS
        .iter()
        .map(|rule| ((*rule).to_owned(), json!({ "enabled": false })));
    let others = json!([everything[0], false, off.collect::<serde_json::Map<_, _>>()]);
    let open = "document.querySelectorAll('details').forEach((d) => { d.open = true; }); return typeof axe;";
    let loaded = chrome.script(open, &json!([]));
    if thoroughness != Thoroughness::Texts && loaded == "undefined" {
        chrome.script(axe, &json!([]));
    }
    for &width in WIDTHS {
        chrome.width(width);
        let first = width == WIDTHS[0];
        for dark in [false, true] {
            let rules = match (thoroughness, dark) {
                (Thoroughness::All, _) => &everything,
                (Thoroughness::Usual | Thoroughness::Brief, false) if first => &everything,
                (Thoroughness::Usual, false) => &others,
                (Thoroughness::Usual, true) if first => &colours,
                (Thoroughness::Usual | Thoroughness::Brief | Thoroughness::Texts, _) => continue,
            };
            chrome.dark(dark);
            let found = chrome.script(CHECK, rules);
            add_problems(problems, &format!("{what} {width} dark={dark}"), &found);
        }
        let found = chrome.script(OVERFLOWING, &json!([]));
        add_problems(problems, &format!("{what} {width}"), &found);
    }
    let dialogs = chrome.script(DIALOG_LINKS, &json!([thoroughness == Thoroughness::All]));
    for number in dialogs.as_array().unwrap() {
        chrome.script(
            "document.querySelectorAll('a[data-dialog]')[arguments[0]].click();",
            &json!([number]),
        );
        chrome.until("document.querySelector('dialog[open] form')");
        if thoroughness != Thoroughness::Texts {
            let within = json!([everything[0], thoroughness != Thoroughness::All]);
            let found = chrome.script(CHECK, &within);
            add_problems(problems, &format!("{what}, dialog {number}"), &found);
        }
        let found = chrome.script(OVERFLOWING, &json!([]));
        add_problems(problems, &format!("{what}, dialog {number}"), &found);
        chrome.eval("document.querySelector('dialog[open]').close()");
    }
    if thoroughness != Thoroughness::Texts {
        // Last, since it cannot be undone.
        chrome.script(LENGTHEN, &json!([]));
        for &width in WIDTHS {
            chrome.width(width);
            // In narrow windows tables are checked with real texts only, of which the German ones are the longest; and so
            // are the running sessions, whose seven columns fill the frame. A frame that is too narrow for its table
            // scrolls.
            let real_only = width < 1280 || what.starts_with("/sessions ");
            let found = chrome.script(OVERFLOWING, &json!([real_only]));
            add_problems(problems, &format!("{what} {width}, longer"), &found);
        }
    }
    chrome.dark(false);
    chrome.width(1280);
}

/// Fails if the open page is not accessible or its texts do not fit; lengthens the texts of the page.
pub fn expect_accessible(chrome: &Chrome, what: &str) {
    let Some(axe) = axe() else { return };
    let mut problems = String::new();
    check_page(
        chrome,
        &axe,
        at_least(Thoroughness::Usual),
        what,
        &mut problems,
    );
    assert!(problems.is_empty(), "{problems}");
}

fn add_problems(problems: &mut String, what: &str, found: &Value) {
    for line in found.as_array().unwrap() {
        writeln!(problems, "{what}: {}", line.as_str().unwrap()).unwrap();
    }
}

/// Opens each of the pages in both languages, and checks it: in English as thoroughly as given, in German the texts. The
/// result lists the problems.
fn check_pages(chrome: &Chrome, axe: &str, english: Thoroughness, paths: &[String]) -> String {
    let mut problems = String::new();
    let script = chrome.on_every_page(axe);
    for (language, thoroughness) in [("en", english), ("de", Thoroughness::Texts)] {
        let thoroughness = at_least(thoroughness);
        if thoroughness == Thoroughness::Texts {
            chrome.on_no_page(&script);
        }
        for path in paths {
            chrome.cookie("lang", language);
            chrome.open_page(path);
            let path_shown = chrome.path();
            if path_shown != format!("{HOME}{path}") {
                writeln!(problems, "{path} leads to {path_shown}").unwrap();
                continue;
            }
            let shown = chrome.eval("[document.documentElement.lang, document.querySelectorAll('h1').length, !document.querySelector('main.alone .card a[href=\"/lizenzserver\"]') && Boolean(document.getElementById('main'))]");
            if shown != json!([language, 1, true]) {
                writeln!(problems, "{path} in {language} is not the page: {shown}").unwrap();
                continue;
            }
            check_page(
                chrome,
                axe,
                thoroughness,
                &format!("{path} {language}"),
                &mut problems,
            );
            for error in chrome.page_errors() {
                writeln!(problems, "{path} {language}: {error}").unwrap();
            }
        }
    }
    problems
}

/// The pages about what was sold; about half of all. The halves are checked side by side.
const SALES: &[&str] = &["/customers", "/licenses", "/plans", "/products", "/trials"];

/// Checks the pages about [`SALES`], or the others.
fn check_every_page(half: fn(&str) -> bool) {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let shop = shop::add_sample_data(&server, "");
    let mut problems = String::new();
    let mut paths = pages(&shop, &mut problems);
    paths.retain(|path| half(path));
    assert!(paths.len() > 10, "{paths:?}");
    problems += &check_pages(&chrome, &axe, Thoroughness::Usual, &paths);
    assert!(problems.is_empty(), "{problems}");
}

fn is_about_sales(path: &str) -> bool {
    SALES.iter().any(|part| path.starts_with(part))
}

#[test]
fn every_page_about_sales_is_accessible_and_its_texts_fit() {
    check_every_page(is_about_sales);
}

#[test]
fn every_other_page_is_accessible_and_its_texts_fit() {
    check_every_page(|path| !is_about_sales(path));
}

#[test]
fn every_list_with_several_products_is_accessible_and_its_texts_fit() {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    shop::add_sample_data(&server, "");
    let long = "Donaudampfschifffahrtsgesellschaftsverwaltung ".repeat(2);
    server.json(&["product", "add", long.trim(), "--slug", "long"]);
    let issue = [
        "license",
        "issue",
        "--customer",
        "1",
        "--domain",
        "a.example",
        "--product",
        "long",
    ];
    server.json(&issue);
    for number in 0..28 {
        server.json(&["product", "add", &format!("Program {number}")]);
    }
    server.json(&["product", "archive", "program-0"]);
    let paths = [
        "",
        "/figures",
        "/licenses",
        "/licenses/new",
        "/licenses/1",
        "/sessions",
        "/sessions/history",
        "/refusals",
        "/sites",
        "/config",
        "/releases",
        "/integrate",
        "/products",
        "/products/new",
        "/products/long/rename",
        "/products/long/archive",
    ];
    let paths = paths.map(str::to_owned);
    let problems = check_pages(&chrome, &axe, Thoroughness::Brief, &paths);
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn the_checks_find_problems() {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = setup::start() else {
        return;
    };
    server.add_admin("ada", "owner");
    chrome.open_page("/login");
    let break_page = "document.querySelector('label').remove(); document.querySelector('h1').style.whiteSpace = 'nowrap'; \
         document.querySelector('h1').append(' Donaudampfschifffahrt'.repeat(9));";
    chrome.script(break_page, &json!([]));
    let mut problems = String::new();
    check_page(&chrome, &axe, Thoroughness::All, "login", &mut problems);
    assert!(
        problems.contains("login 1280 dark=true: label: "),
        "{problems}"
    );
    assert!(problems.contains("login 320: the page is "), "{problems}");
}

#[test]
fn every_page_without_a_login_is_accessible_and_its_texts_fit() {
    let Some(axe) = axe() else { return };
    let Some((server, chrome)) = setup::start() else {
        return;
    };
    server.add_admin("ada", "owner");
    chrome.open_page("/login");
    let paths: Vec<String> = LOGIN_PAGES.iter().map(|path| (*path).to_owned()).collect();
    let problems = check_pages(&chrome, &axe, Thoroughness::Usual, &paths);
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn every_empty_list_is_accessible() {
    let Some(axe) = axe() else { return };
    let Some((_server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let routes = shop::routes();
    let lists = routes.iter().filter(|(method, path)| {
        method == "GET"
            && (path == "/setup/license" || !SKIPPED_PAGES.contains(&path.as_str()))
            && !path.contains('<')
            // Forms are the same with sample data, and are checked there.
            && !path.ends_with("/new")
            && !path.starts_with("/profile/")
            // With nothing selected there is only the list.
            && path != "/licenses/selected"
            && !NOT_PAGES.contains(&path.as_str())
    });
    let lists = lists.filter(|(_, path)| !LOGIN_PAGES.contains(&path.as_str()));
    let paths: Vec<String> = lists.map(|(_, path)| path.clone()).collect();
    let problems = check_pages(&chrome, &axe, Thoroughness::Brief, &paths);
    assert!(problems.is_empty(), "{problems}");
}
