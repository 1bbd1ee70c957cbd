//! The commands `license-server config rotate-signing-key` and `config new-authority`.

use std::path::Path;

use serde_json::json;

use super::{KeyStorage, LostKeys, NewAuthority, PresentAuthority};
use crate::audit::Actor;
use crate::console::Console;
use crate::error::{Error, Result};

/// Makes the next signing key current.
///
/// # Errors
/// As [`super::rotate`].
pub fn rotate(console: &Console, data: &Path, lost: LostKeys) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let storage = KeyStorage {
        db: &console.db,
        data,
    };
    super::rotate(storage, lost, actor, now)
}

/// Records or generates a new certificate authority, and prints the consequences.
///
/// # Errors
/// [`Error::State`] while a server runs, since it uses the old one; else as [`super::new_authority`].
pub fn new_authority(console: &Console, data: &Path, present: PresentAuthority) -> Result<()> {
    if console.db.is_served()? {
        return Err(Error::State(
            "a server is running and uses the current authority: stop it first".to_owned(),
        ));
    }
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let storage = KeyStorage {
        db: &console.db,
        data,
    };
    let origin = super::new_authority(storage, present, actor, now)?;
    let file = data.join("tls").join(crate::tls::CA_FILE);
    let text = match origin {
        NewAuthority::Adopted => "is now the authority that programs must trust",
        NewAuthority::Generated => {
            "is a new authority: every program that trusts the old one refuses this server until it has this file"
        }
    };
    let made = origin == NewAuthority::Generated;
    let line = format!("{} {text}", file.display());
    console.show_line(&json!({ "authority": file, "made": made }), &line)
}
