//! Markdown as the HTML of a page of the panel. The HTML consists of the elements below and nothing else: HTML in the text is
//! shown, not used; a link leads to a page of the manual or the panel, or to another site by `https`.

use std::collections::BTreeMap;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{PAGES, Page, Section};
use crate::config::Language;

const HELP: &str = "/lizenzserver/help";

/// Renders a page. Its first heading, of level 1, is its title, which is not part of its HTML.
pub(super) fn page(name: &'static str, text: &str) -> Page {
    let mut renderer = Renderer::default();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        renderer.take(event);
    }
    let Renderer {
        html,
        title,
        lead,
        sections,
        ..
    } = renderer;
    let sections = sections.into_iter().map(|section| section.index(&title));
    Page {
        name,
        lead,
        html,
        sections: sections.collect(),
        title,
    }
}

/// Plain text as Markdown. Text between backticks stays code.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut in_code = false;
    for c in text.chars() {
        in_code ^= c == '`';
        if !in_code && matches!(c, '\\' | '*' | '_' | '[' | ']' | '<' | '#' | '|') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The target of a link in the panel; `None` for one that is not allowed.
pub(super) fn target(link: &str) -> Option<String> {
    if link.starts_with('#') || link.starts_with("/lizenzserver") || link.starts_with("https://") {
        return Some(link.to_owned());
    }
    let (file, anchor) = match link.find('#') {
        Some(at) => link.split_at(at),
        None => (link, ""),
    };
    let name = [Language::De, Language::En]
        .iter()
        .find_map(|language| file.strip_suffix(&format!(".{}.md", language.tag())))?;
    PAGES
        .contains(&name)
        .then(|| format!("{HELP}/{name}{anchor}"))
}

/// The `id` of a heading, as GitHub makes it, so that the same links work there.
fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let letters = lower.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    letters.collect()
}

#[derive(Default)]
struct Renderer {
    html: String,
    title: String,
    lead: String,
    sections: Vec<Section>,
    /// How often each `id` has been wanted.
    ids: BTreeMap<String, usize>,
    /// How many regions, such as tables, there are below the present heading.
    regions: usize,
    /// Where the present heading begins in `html`, and its text so far.
    heading: Option<(usize, String)>,
    in_table_head: bool,
    /// The number of the present cell in its row.
    cell: usize,
    /// Whether each link that is open is one in HTML.
    links: Vec<bool>,
}

impl Renderer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(code) => {
                self.html.push_str("<code>");
                self.text(&code);
                self.html.push_str("</code>");
            }
            Event::SoftBreak => self.text(" "),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            // Not among the options.
            Event::FootnoteReference(_)
            | Event::TaskListMarker(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_) => {}
        }
    }

    /// Text, also for the search.
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                other => self.html.push(other),
            }
        }
        match (&mut self.heading, self.sections.last_mut()) {
            (Some((_, heading)), _) => heading.push_str(text),
            (None, Some(section)) => section.text.push_str(text),
            (None, None) => {}
        }
    }

    /// Ends a word in the text for the search.
    fn space(&mut self) {
        if let Some(section) = self.sections.last_mut() {
            section.text.push(' ');
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { .. } => self.heading = Some((self.html.len(), String::new())),
            Tag::Paragraph | Tag::HtmlBlock => self.html.push_str("<p>"),
            Tag::BlockQuote(_) => self.html.push_str("<div class=\"note\">"),
            Tag::CodeBlock(kind) => self.open_code(kind),
            Tag::List(None) => self.html.push_str("<ul>"),
            Tag::List(Some(_)) => self.html.push_str("<ol>"),
            Tag::Item => self.html.push_str("<li>"),
            Tag::Emphasis => self.html.push_str("<em>"),
            Tag::Strong => self.html.push_str("<strong>"),
            Tag::Link { dest_url, .. } => self.open_link(dest_url),
            Tag::Table(_) => self.open_table(),
            Tag::TableHead => {
                self.in_table_head = true;
                self.cell = 0;
                self.html.push_str("<thead><tr>");
            }
            Tag::TableRow => {
                self.cell = 0;
                self.html.push_str("<tr>");
            }
            Tag::TableCell => self.open_cell(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        if !matches!(tag, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link) {
            self.space();
        }
        match tag {
            TagEnd::Heading(level) => self.end_heading(level),
            TagEnd::Paragraph | TagEnd::HtmlBlock => self.end_paragraph(),
            TagEnd::BlockQuote(_) => self.html.push_str("</div>\n"),
            TagEnd::CodeBlock => self.html.push_str("</pre>\n"),
            TagEnd::List(false) => self.html.push_str("</ul>\n"),
            TagEnd::List(true) => self.html.push_str("</ol>\n"),
            TagEnd::Item => self.html.push_str("</li>\n"),
            TagEnd::Emphasis => self.html.push_str("</em>"),
            TagEnd::Strong => self.html.push_str("</strong>"),
            TagEnd::Link if self.links.pop() == Some(true) => self.html.push_str("</a>"),
            TagEnd::Table => self.html.push_str("</tbody></table></div>\n"),
            TagEnd::TableHead => {
                self.in_table_head = false;
                self.html.push_str("</tr></thead><tbody>\n");
            }
            TagEnd::TableRow => self.html.push_str("</tr>\n"),
            TagEnd::TableCell => self.end_cell(),
            _ => {}
        }
    }

    fn end_heading(&mut self, level: HeadingLevel) {
        let Some((begin, heading)) = self.heading.take() else {
            return;
        };
        let inner = self.html.split_off(begin);
        self.regions = 0;
        if level == HeadingLevel::H1 {
            self.title.clone_from(&heading);
            self.sections.push(Section {
                level: 1,
                heading,
                ..Section::default()
            });
            return;
        }
        let level = level as u8;
        let id = self.id(&heading);
        let heading_html = format!("<h{level} id=\"{id}\">{inner}</h{level}>\n");
        self.html.push_str(&heading_html);
        self.sections.push(Section {
            level,
            id,
            heading,
            ..Section::default()
        });
    }

    /// An `id` that no other heading has.
    fn id(&mut self, heading: &str) -> String {
        let slug = slug(heading);
        let used = self.ids.entry(slug.clone()).or_default();
        *used += 1;
        match *used {
            1 => slug,
            more => format!("{slug}-{}", more - 1),
        }
    }

    fn end_paragraph(&mut self) {
        self.html.push_str("</p>\n");
        if let ([first], true) = (self.sections.as_slice(), self.lead.is_empty()) {
            first.text.trim().clone_into(&mut self.lead);
        }
    }

    /// The attributes of an element that scrolls by itself, so that the keyboard reaches it, and its label.
    fn region(&mut self) -> (String, String) {
        self.regions += 1;
        let heading = self.sections.last().map(|section| section.heading.as_str());
        let heading = heading.unwrap_or_default().replace('&', "&amp;");
        let heading = heading.replace('<', "&lt;").replace('"', "&quot;");
        let label = match self.regions {
            1 => heading,
            more => format!("{heading} ({more})"),
        };
        let attributes = format!("role=\"region\" tabindex=\"0\" aria-label=\"{label}\"");
        (attributes, label)
    }

    fn open_code(&mut self, kind: &CodeBlockKind<'_>) {
        let (attributes, _) = self.region();
        // The width of a diagram is that of its lines; a command is longer than most windows.
        let wraps = match kind {
            CodeBlockKind::Fenced(info) if info.starts_with("sh") => " class=\"wrapped\"",
            _ => "",
        };
        self.html.extend(["<pre", wraps, " ", &attributes, ">"]);
    }

    fn open_table(&mut self) {
        let (attributes, label) = self.region();
        self.html
            .extend(["<div class=\"scroll\" ", &attributes, "><table>"]);
        self.html
            .extend(["<caption class=\"unseen\">", &label, "</caption>"]);
    }

    fn open_cell(&mut self) {
        self.html.push_str(match (self.in_table_head, self.cell) {
            (true, _) => "<th scope=\"col\">",
            (false, 0) => "<th scope=\"row\">",
            (false, _) => "<td>",
        });
    }

    fn end_cell(&mut self) {
        let is_head = self.in_table_head || self.cell == 0;
        self.html.push_str(if is_head { "</th>" } else { "</td>" });
        self.cell += 1;
    }

    fn open_link(&mut self, link: &str) {
        let target = target(link);
        self.links.push(target.is_some());
        if let Some(target) = target {
            let target = target.replace('&', "&amp;").replace('"', "&quot;");
            self.html.extend(["<a href=\"", &target, "\">"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_title_its_parts_and_its_html() {
        let page = page(
            "start",
            "# A & B\n\nThe *lead*.\n\n## One `x`\n\nText [there](program.en.md#codes).\n\n## One x\n\n1. a\n2. b\n",
        );
        assert_eq!(
            (page.title.as_str(), page.lead.as_str()),
            ("A & B", "The lead.")
        );
        assert_eq!(
            page.html,
            "<p>The <em>lead</em>.</p>\n<h2 id=\"one-x\">One <code>x</code></h2>\n\
             <p>Text <a href=\"/lizenzserver/help/program#codes\">there</a>.</p>\n\
             <h2 id=\"one-x-1\">One x</h2>\n<ol><li>a</li>\n<li>b</li>\n</ol>\n"
        );
        let ids: Vec<&str> = page.sections.iter().map(|part| part.id.as_str()).collect();
        assert_eq!(ids, ["", "one-x", "one-x-1"]);
    }

    #[test]
    fn html_and_strange_links_are_text() {
        let page = page(
            "start",
            "# T\n\na <b onclick=\"x\">b</b> [c](javascript:x) ![d](https://example.org/d.png)\n\n<script>x</script>\n",
        );
        assert_eq!(
            page.html,
            "<p>a &lt;b onclick=&quot;x&quot;&gt;b&lt;/b&gt; c d</p>\n<p>&lt;script&gt;x&lt;/script&gt;\n</p>\n"
        );
    }

    #[test]
    fn tables_and_code_are_regions_with_labels_of_their_own() {
        let page = page(
            "start",
            "# T\n\n## H\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n```sh run\nls <x>\n```\n",
        );
        assert_eq!(
            page.html,
            "<h2 id=\"h\">H</h2>\n\
             <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"H\"><table><caption class=\"unseen\">H</caption>\
             <thead><tr><th scope=\"col\">a</th><th scope=\"col\">b</th></tr></thead><tbody>\n\
             <tr><th scope=\"row\">1</th><td>2</td></tr>\n</tbody></table></div>\n\
             <pre class=\"wrapped\" role=\"region\" tabindex=\"0\" aria-label=\"H (2)\">ls &lt;x&gt;\n</pre>\n"
        );
    }

    #[test]
    fn links_lead_to_pages_of_the_manual_of_the_panel_and_of_other_sites() {
        for (link, expected) in [
            ("#codes", Some("#codes")),
            ("/lizenzserver/config", Some("/lizenzserver/config")),
            ("https://example.org/", Some("https://example.org/")),
            ("keep.de.md", Some("/lizenzserver/help/keep")),
            ("keep.en.md#move", Some("/lizenzserver/help/keep#move")),
            ("other.en.md", None),
            ("../../README.md", None),
            ("http://example.org/", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(target(link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn escaped_text_is_shown_as_it_is() {
        let text = "a_b *c* [d] <e> `f_g <h>` #i";
        let page = page("start", &format!("# T\n\n{}\n", escape(text)));
        assert_eq!(
            page.html,
            "<p>a_b *c* [d] &lt;e&gt; <code>f_g &lt;h&gt;</code> #i</p>\n"
        );
    }
}
