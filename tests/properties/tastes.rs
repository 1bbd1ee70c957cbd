//! What two tabs of one person change at once: neither undoes what the other has just done.

use license_server::admins::{self, Preferences, Role};
use license_server::audit::Actor;
use license_server::config::Language;

use crate::house::{House, NOON};

#[test]
fn of_two_tabs_neither_drops_what_the_other_changes() {
    let house = House::new();
    let prefer = |id, taste: Preferences| {
        let actor = Actor::server();
        let write = house.db().write_blocking("admins.prefer", move |tx| {
            admins::set_preferences(tx, id, &taste, &actor, NOON)?;
            admins::get(tx, id)
        });
        let admin = write.unwrap();
        (admin.language, admin.single_keys)
    };
    let actor = Actor::server();
    let id = house.db().write_blocking("admins.add", move |tx| {
        admins::add(tx, "ada", Role::Support, "hash", &actor, NOON)
    });
    let id = id.unwrap();
    let all = |language, single_keys| Preferences::All {
        language,
        single_keys,
    };
    let (de, en) = (Some(Language::De), Some(Language::En));
    // Both tabs were opened before the first line: each change is judged by what is there when it is made.
    assert_eq!(prefer(id, all(en, false)), (en, false));
    assert_eq!(prefer(id, Preferences::Language(Language::De)), (de, false));
    assert_eq!(
        prefer(id, all(None, true)),
        (None, true),
        "as it was at first"
    );
    assert_eq!(prefer(id, Preferences::Language(Language::En)), (en, true));
}
