//! Changes of preferences in two tabs at once: neither undoes the other's.

use license_server::admins::{self, Preferences, Role};
use license_server::audit::{Act, Actor};
use license_server::config::Language;

use crate::in_process::{InProcess, NOON};

#[test]
fn two_tabs_do_not_undo_each_others_changes() {
    let server = InProcess::new();
    let set_preferences = |id, preferences: Preferences| {
        let actor = Actor::server();
        let write = server.db().write_blocking("admins.prefer", move |tx| {
            admins::set_preferences(&Act::new(tx, &actor, NOON), id, &preferences)?;
            admins::get(tx, id)
        });
        let admin = write.unwrap();
        (admin.language, admin.single_keys)
    };
    let actor = Actor::server();
    let id = server.db().write_blocking("admins.add", move |tx| {
        admins::add(&Act::new(tx, &actor, NOON), "ada", Role::Support, "hash")
    });
    let id = id.unwrap().id;
    let all = |language, single_keys| Preferences::All {
        time_zone: None,
        language,
        single_keys,
        seen: None,
    };
    let (de, en) = (Some(Language::De), Some(Language::En));
    // Both tabs were opened before: each change applies to the preferences at the time of the change.
    assert_eq!(set_preferences(id, all(en, false)), (en, false));
    assert_eq!(
        set_preferences(id, Preferences::Language(Language::De)),
        (de, false)
    );
    assert_eq!(
        set_preferences(id, all(None, true)),
        (None, true),
        "both, as at first"
    );
    assert_eq!(
        set_preferences(id, Preferences::Language(Language::En)),
        (en, true)
    );
}
