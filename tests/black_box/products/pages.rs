//! The pages of the products themselves: the list, a new one, renaming, archiving; and the switcher.

use crate::browser::{Browser, HOME};
use crate::support::Server;

fn add(panel: &mut Browser, name: &str, slug: &str) -> crate::support::Response {
    panel.post("/products/new", &[("name", name), ("slug", slug)])
}

#[test]
fn products_are_added_renamed_and_archived_in_the_panel() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let added = add(&mut panel, "Buchhaltung & Söhne", "");
    let settings = format!("{HOME}/config?product=buchhaltung-soehne");
    assert_eq!(
        added.header("location"),
        Some(settings.as_str()),
        "{added:?}"
    );
    let page = panel.get(settings.strip_prefix(HOME).unwrap()).text;
    assert!(page.contains("Product added."), "{page}");
    assert!(page.contains("Buchhaltung &amp; Söhne"), "{page}");
    for (name, slug, problem) in [
        ("", "a", "Please enter a name of at most 100 characters."),
        ("A", "-a", "Please enter at most 40 lowercase letters"),
        ("A", "my-program", "or had, the short name my-program"),
    ] {
        let refused = add(&mut panel, name, slug);
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(
            refused.text.contains(problem),
            "{problem}: {}",
            refused.text
        );
        let typed = format!("value=\"{slug}\"");
        assert!(refused.text.contains(&typed), "{}", refused.text);
    }
    let list = panel.get("/products").text;
    assert!(list.contains("<code>buchhaltung-soehne</code>"), "{list}");
    let path = "/products/buchhaltung-soehne";
    let renamed = panel.post(&format!("{path}/rename"), &[("name", "Lager")]);
    assert_eq!(renamed.status, 303, "{renamed:?}");
    let wrong = panel.post(&format!("{path}/rename"), &[("name", " ")]);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    let question = panel.get(&format!("{path}/archive")).text;
    assert!(question.contains("Archive Lager?"), "{question}");
    let wrong = panel.post(&format!("{path}/archive"), &[("typed", "lager")]);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    let archived = panel.post(
        &format!("{path}/archive"),
        &[("typed", "buchhaltung-soehne")],
    );
    let back = format!("{HOME}/products");
    assert_eq!(
        archived.header("location"),
        Some(back.as_str()),
        "{archived:?}"
    );
    let again = panel.post(
        &format!("{path}/archive"),
        &[("typed", "buchhaltung-soehne")],
    );
    assert_eq!(again.status, 409, "{again:?}");
    let unknown = panel.get("/products/nothing/rename");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    let log = server.json(&["product", "list"]);
    assert_eq!(log["products"].as_array().unwrap().len(), 2, "{log}");
    let audit = panel.get("/audit?room=products").text;
    for action in ["Product added", "Product renamed", "Product archived"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
}

#[test]
fn the_switcher_names_every_product_also_with_the_same_or_a_long_name() {
    let server = Server::start();
    let long = "Verwaltungsprogramm ".repeat(5);
    for number in 0..28 {
        server.json(&["product", "add", &format!("Program {number}")]);
    }
    server.json(&["product", "add", long.trim(), "--slug", "long"]);
    // Only an archived product can have the name of another one.
    server.json(&["product", "rename", "my-program", "New program"]);
    server.json(&["product", "add", "My program", "--slug", "other"]);
    server.json(&["product", "archive", "other"]);
    server.json(&["product", "rename", "my-program", "My program"]);
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/licenses").text;
    let options = page.split("<select id=\"product\"").nth(1).unwrap();
    let options = options.split("</select>").next().unwrap();
    assert_eq!(
        options.matches("<option ").count(),
        32,
        "all, and 31 products"
    );
    for option in [
        "<option value=\"\">All products</option>".to_owned(),
        "<option value=\"other\">My program (other)</option>".to_owned(),
        "<option value=\"my-program\">My program (my-program)</option>".to_owned(),
        format!("<option value=\"long\">{}</option>", long.trim()),
    ] {
        assert!(options.contains(&option), "{option} in {options}");
    }
}
