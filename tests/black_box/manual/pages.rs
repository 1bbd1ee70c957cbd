//! The manual: every page in both languages, every link, and the panel's search.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use license_server::manual::PAGES;

use crate::browser::{Browser, HOME};
use crate::support::Server;

/// The languages of the manual.
pub const LANGUAGES: &[&str] = &["en", "de"];

/// The text of a page's file.
pub fn text_of(page: &str, language: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/manual");
    let path = folder.join(format!("{page}.{language}.md"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The parts of `text` between `begin` and `end`.
fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> Vec<&'a str> {
    let parts = text.split(begin).skip(1);
    parts.map(|part| part.split(end).next().unwrap()).collect()
}

/// The article on a page of the panel.
fn article(page: &str) -> &str {
    between(page, "<article class=\"manual\">", "</article>")[0]
}

fn page_in(browser: &mut Browser, language: &str, path: &str) -> String {
    browser.set_cookie("lang", language);
    let answer = browser.get(path);
    assert_eq!(answer.status, 200, "{path}");
    answer.text
}

#[test]
fn every_file_is_a_page_and_every_page_has_both_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/manual");
    let names = std::fs::read_dir(folder).unwrap();
    let names: BTreeSet<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let pages = PAGES.iter();
    let expected = pages.flat_map(|page| LANGUAGES.iter().map(move |it| format!("{page}.{it}.md")));
    assert_eq!(names, expected.collect());
}

#[test]
fn every_link_of_the_manual_leads_somewhere() {
    let server = Server::start();
    let mut browser = server.logged_in_browser("owner");
    for language in LANGUAGES {
        let mut pages = BTreeMap::new();
        for name in PAGES {
            let page = page_in(&mut browser, language, &format!("/help/{name}"));
            pages.insert(format!("{HOME}/help/{name}"), page);
        }
        let mut problems = Vec::new();
        let mut followed = 0;
        for (path, page) in &pages {
            let ids: Vec<&str> = between(page, " id=\"", "\"");
            let different: BTreeSet<&str> = ids.iter().copied().collect();
            assert_eq!(
                ids.len(),
                different.len(),
                "{path} has an id twice: {ids:?}"
            );
            for link in between(page, "href=\"", "\"") {
                let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
                let to = if to.is_empty() { path } else { to };
                let target = match pages.get(to) {
                    Some(target) => target.clone(),
                    None if to.starts_with(HOME) && !to.contains('?') => {
                        let below = to.strip_prefix(HOME).unwrap();
                        browser.get(below).text
                    }
                    None => continue,
                };
                let is_page = target.contains("<main id=\"main\"");
                if !is_page || !(anchor.is_empty() || target.contains(&format!("id=\"{anchor}\"")))
                {
                    problems.push(format!("{path} {language}: {link}"));
                }
                followed += 1;
            }
        }
        assert!(problems.is_empty(), "{problems:#?}");
        assert!(followed > 100, "{followed}");
    }
}

#[test]
fn every_link_of_the_files_is_one_of_the_pages() {
    for language in LANGUAGES {
        for name in PAGES {
            let text = text_of(name, language);
            for link in between(&text, "](", ")") {
                let file = link.split('#').next().unwrap();
                let to_page = file
                    .strip_suffix(&format!(".{language}.md"))
                    .is_some_and(|page| PAGES.contains(&page));
                let allowed = to_page
                    || link.starts_with('#')
                    || link.starts_with("https://")
                    || link.starts_with(HOME);
                assert!(allowed, "{name}.{language}.md: {link}");
            }
        }
    }
}

#[test]
fn both_languages_have_the_same_parts() {
    let server = Server::start();
    let mut browser = server.logged_in_browser("support");
    for name in PAGES {
        let [english, german] = [0, 1].map(|index| {
            let page = page_in(&mut browser, LANGUAGES[index], &format!("/help/{name}"));
            let article = article(&page);
            let tags = ["<h2", "<h3", "<pre", "<table", "<tr"];
            tags.map(|tag| (tag, article.matches(tag).count()))
        });
        assert_eq!(english, german, "{name}");
    }
}

#[test]
fn no_page_of_the_manual_contains_markup_of_its_own() {
    for language in LANGUAGES {
        for name in PAGES {
            let text = text_of(name, language);
            let mut in_code = false;
            for line in text.lines() {
                in_code ^= line.starts_with("```");
                let mut outside = line.split('`').step_by(2);
                let has_tag = outside.any(|part| part.contains('<'));
                assert!(in_code || !has_tag, "{name}.{language}.md: {line}");
            }
        }
    }
}

#[test]
fn the_manual_is_found_by_the_search_in_the_language_of_the_reader() {
    let server = Server::start();
    let mut browser = server.logged_in_browser("support");
    for (language, words, expected, other) in [
        (
            "en",
            "fingerprint",
            "/help/program#the-fingerprint",
            "Handbuch",
        ),
        (
            "de",
            "fingerabdruck",
            "/help/program#der-fingerabdruck",
            ">Manual<",
        ),
        (
            "en",
            "session_active",
            "/help/program#codes-and-what-to-do",
            "Handbuch",
        ),
    ] {
        let page = page_in(&mut browser, language, &format!("/search?q={words}"));
        assert!(
            page.contains(&format!("href=\"{HOME}{expected}\"")),
            "{page}"
        );
        assert!(!page.contains(other), "{page}");
    }
    let nothing = page_in(&mut browser, "en", "/search?q=zzzzzz");
    assert!(!nothing.contains("results-manual"));
}

#[test]
fn the_contents_list_every_page_and_an_unknown_one_is_not_found() {
    let server = Server::start();
    let mut browser = server.logged_in_browser("support");
    for language in LANGUAGES {
        let contents = page_in(&mut browser, language, "/help");
        for name in PAGES {
            assert!(
                contents.contains(&format!("href=\"{HOME}/help/{name}\"")),
                "{name}"
            );
        }
    }
    for unknown in ["/help/nothing", "/help/start.en", "/help/..%2fstart"] {
        assert_ne!(browser.get(unknown).status, 200, "{unknown}");
    }
    let mut stranger = server.browser();
    assert_eq!(stranger.get("/help/start").status, 303);
}
