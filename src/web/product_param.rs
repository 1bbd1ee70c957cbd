//! The query parameter `product`: the product that an administrator has chosen in the panel. It is part of the address,
//! and never of a cookie, so that two tabs stay apart. Responses of the panel add it here to every link, form and
//! redirect that leads to another page of the panel, so that no template or handler has to.

use std::sync::OnceLock;

use rocket::Request;

/// The name of the parameter. Its value is a slug: `a-z`, `0-9` and hyphens, the same in HTML and in an address.
pub const PRODUCT: &str = "product";
/// The root of the panel's paths.
const HOME: &str = "/lizenzserver";
/// Pages for which no product can be chosen.
const LOGIN: &str = "/lizenzserver/login";

/// The slug of the product that the response to a request keeps.
#[derive(Default)]
struct ChosenSlug(OnceLock<String>);

/// Lets the response to `request` keep the product with this slug.
pub fn keep(request: &Request<'_>, slug: &str) {
    // A page is about one product, so there is only one value to set.
    let kept = request.local_cache(ChosenSlug::default);
    kept.0.get_or_init(|| slug.to_owned());
}

/// `path` with the product that the response to `request` keeps.
pub fn in_path(request: &Request<'_>, path: String) -> String {
    match request.local_cache(ChosenSlug::default).0.get() {
        Some(slug) => path_with(&path, slug),
        None => path,
    }
}

/// The HTML of a page or of a part of one, with the product that the response to `request` keeps in every address.
pub fn in_html(request: &Request<'_>, html: String) -> String {
    match request.local_cache(ChosenSlug::default).0.get() {
        Some(slug) => html_with(&html, slug),
        None => html,
    }
}

/// `path` with the parameter; unchanged if it has one, and outside of the panel.
pub fn path_with(path: &str, slug: &str) -> String {
    address_with(path, slug, "&")
}

fn address_with(address: &str, slug: &str, ampersand: &str) -> String {
    let is_below = |root: &str| {
        let rest = address.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    let has_one = ['?', '&', ';'].map(|before| format!("{before}{PRODUCT}="));
    if !is_below(HOME) || is_below(LOGIN) || has_one.iter().any(|one| address.contains(one)) {
        return address.to_owned();
    }
    let (path, fragment) = match address.split_once('#') {
        Some((path, fragment)) => (path, format!("#{fragment}")),
        None => (address, String::new()),
    };
    let joint = if path.contains('?') { ampersand } else { "?" };
    format!("{path}{joint}{PRODUCT}={slug}{fragment}")
}

/// Adds the parameter to links, to the addresses of forms, and to those of live regions. A form that is sent with `GET`
/// gets a hidden field instead, since the browser replaces the query of its address. Text cannot imitate an attribute,
/// because its quotation marks are escaped.
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
        Some((before, (address, after))) => {
            let address = address_with(address, slug, "&amp;");
            format!("{before}{attribute}{address}\"{after}")
        }
        None => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_within_the_panel_keeps_the_product() {
        for (path, kept) in [
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
            assert_eq!(path_with(path, "b"), kept);
        }
    }

    #[test]
    fn links_forms_and_live_regions_keep_the_product() {
        for (html, kept) in [
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
            assert_eq!(html_with(html, "b"), kept);
        }
    }
}
