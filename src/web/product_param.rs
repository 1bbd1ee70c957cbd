//! The query parameter `product`: the product that an administrator has chosen in the panel. It is part of the URL,
//! and never of a cookie, so that two tabs stay apart. Here it is added to every link, form and redirect in a response
//! that leads to another page of the panel, so that no template or handler has to.

use std::sync::OnceLock;

use rocket::Request;

/// The name of the parameter. Its value is a slug: `a-z`, `0-9` and hyphens, which needs no escaping in HTML or in a URL.
pub const PRODUCT: &str = "product";
/// The root of the panel's paths.
const HOME: &str = "/lizenzserver";
/// Pages for which no product can be chosen.
const LOGIN: &str = "/lizenzserver/login";

/// The slug of the chosen product, which every link of the response carries.
#[derive(Default)]
struct ChosenSlug(OnceLock<String>);

/// Sets the chosen product, which every link of the response to `request` carries.
pub fn set_chosen(request: &Request<'_>, slug: &str) {
    // A page is about one product, so there is only one value to set.
    let chosen = request.local_cache(ChosenSlug::default);
    chosen.0.get_or_init(|| slug.to_owned());
}

/// `path` with the product that was chosen for the response to `request`.
pub fn add_to_path(request: &Request<'_>, path: String) -> String {
    match request.local_cache(ChosenSlug::default).0.get() {
        Some(slug) => path_with(&path, slug),
        None => path,
    }
}

/// The HTML of a page or of a part of one; its links get the product that was chosen for the response to `request`.
pub fn add_to_html(request: &Request<'_>, html: String) -> String {
    match request.local_cache(ChosenSlug::default).0.get() {
        Some(slug) => html_with(&html, slug),
        None => html,
    }
}

/// `path` with the parameter; unchanged if it has one already, or if it is not a path of the panel.
pub fn path_with(path: &str, slug: &str) -> String {
    url_with(path, slug, "&")
}

/// `url` with the parameter; `ampersand` is how `&` is written around it.
fn url_with(url: &str, slug: &str, ampersand: &str) -> String {
    let is_below = |root: &str| {
        let rest = url.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    // `;` ends `&amp;` in HTML.
    let beginnings = ['?', '&', ';'].map(|before| format!("{before}{PRODUCT}="));
    let has_product = beginnings.iter().any(|beginning| url.contains(beginning));
    if !is_below(HOME) || is_below(LOGIN) || has_product {
        return url.to_owned();
    }
    let (path, fragment) = match url.split_once('#') {
        Some((path, fragment)) => (path, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let separator = if path.contains('?') { ampersand } else { "?" };
    format!("{path}{separator}{PRODUCT}={slug}{fragment}")
}

/// Adds the parameter to the URLs of links, of form actions, and of the parts that the script refreshes (`data-live`).
/// A form that is sent with `GET` gets a hidden field instead, since the browser replaces the query of its URL. Text
/// cannot imitate an attribute, because its quotation marks are escaped.
fn html_with(html: &str, slug: &str) -> String {
    let mut all = String::with_capacity(html.len() + html.len() / 8);
    let mut rest = html;
    while let Some((text, tail)) = rest.split_once('<') {
        let (tag, after) = tail.split_once('>').unwrap_or((tail, ""));
        all.extend([text, "<", &tag_with(tag, slug), ">"]);
        if lacks_field(tag, after) {
            let field = [
                "<input type=\"hidden\" name=\"",
                PRODUCT,
                "\" value=\"",
                slug,
                "\">",
            ];
            all.extend(field);
        }
        rest = after;
    }
    all.push_str(rest);
    all
}

/// Whether `tag` begins a form that is sent with `GET` and has no field for the product in its `content`.
fn lacks_field(tag: &str, content: &str) -> bool {
    let fields = content.split("</form>").next().unwrap_or_default();
    name_of(tag) == "form"
        && !tag.contains("method=\"")
        && !fields.contains(&format!("name=\"{PRODUCT}\""))
}

fn name_of(tag: &str) -> &str {
    tag.split_ascii_whitespace().next().unwrap_or_default()
}

fn tag_with(tag: &str, slug: &str) -> String {
    let attribute = match name_of(tag) {
        "a" => " href=\"",
        "form" if tag.contains("method=\"post\"") => " action=\"",
        "form" => return tag.to_owned(),
        _ => " data-live=\"",
    };
    let value = tag.split_once(attribute);
    let value = value.and_then(|(before, rest)| Some((before, rest.split_once('"')?)));
    match value {
        Some((before, (url, after))) => {
            let url = url_with(url, slug, "&amp;");
            format!("{before}{attribute}{url}\"{after}")
        }
        None => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_panel_gets_the_product_once() {
        for (path, expected) in [
            ("/lizenzserver", "/lizenzserver?product=b"),
            ("/lizenzserver/licenses", "/lizenzserver/licenses?product=b"),
            (
                "/lizenzserver/config?at=flags#flags",
                "/lizenzserver/config?at=flags&product=b#flags",
            ),
            ("/lizenzserver#refused", "/lizenzserver?product=b#refused"),
            (
                "/lizenzserver/config?product=a",
                "/lizenzserver/config?product=a",
            ),
            (
                "/lizenzserver/licenses?q=x&product=a",
                "/lizenzserver/licenses?q=x&product=a",
            ),
            ("/lizenzserver/login?next=x", "/lizenzserver/login?next=x"),
            ("/lizenzserverx", "/lizenzserverx"),
            ("https://example.org/", "https://example.org/"),
            ("#main", "#main"),
        ] {
            assert_eq!(path_with(path, "b"), expected);
        }
    }

    #[test]
    fn links_forms_and_refreshed_parts_get_the_product() {
        for (html, expected) in [
            (
                r#"<a class="btn" href="/lizenzserver/licenses?q=a&amp;state=all">x</a>"#,
                r#"<a class="btn" href="/lizenzserver/licenses?q=a&amp;state=all&amp;product=b">x</a>"#,
            ),
            (
                "<a data-dialog\n    href=\"/lizenzserver/sessions/7/terminate\">x</a>",
                "<a data-dialog\n    href=\"/lizenzserver/sessions/7/terminate?product=b\">x</a>",
            ),
            (
                r#"<form method="post" action="/lizenzserver/config/update"><input name="x">"#,
                r#"<form method="post" action="/lizenzserver/config/update?product=b"><input name="x">"#,
            ),
            (
                r#"<form role="search" action="/lizenzserver/licenses"><input name="q"></form>"#,
                r#"<form role="search" action="/lizenzserver/licenses"><input type="hidden" name="product" value="b"><input name="q"></form>"#,
            ),
            (
                r#"<form action="/lizenzserver"><select name="product"></select></form>"#,
                r#"<form action="/lizenzserver"><select name="product"></select></form>"#,
            ),
            (
                r#"<div data-live="/lizenzserver/config?part=monitor" data-every="30">"#,
                r#"<div data-live="/lizenzserver/config?part=monitor&amp;product=b" data-every="30">"#,
            ),
            (
                r#"<link rel="stylesheet" href="/lizenzserver/panel.css?v=1">"#,
                r#"<link rel="stylesheet" href="/lizenzserver/panel.css?v=1">"#,
            ),
            (
                r##"<a href="#main">x</a><a href="https://example.org/">y</a>"##,
                r##"<a href="#main">x</a><a href="https://example.org/">y</a>"##,
            ),
            (
                "<td>&lt;a href=&quot;/lizenzserver&quot;&gt; 1 &lt; 2</td>",
                "<td>&lt;a href=&quot;/lizenzserver&quot;&gt; 1 &lt; 2</td>",
            ),
            ("no markup", "no markup"),
        ] {
            assert_eq!(html_with(html, "b"), expected);
        }
    }
}
