//! Command line: `license-server license release-device`.

use serde_json::json;

use super::Released;
use crate::audit::{Act, Actor};
use crate::console::Console;
use crate::error::Result;
use crate::sessions::cli::StoredLiveness;

/// Frees the slot of the device with this fingerprint or name.
pub fn release(console: &Console, key: &str, name_or_fingerprint: &str) -> Result<()> {
    let actor = Actor::command_line(&console.user);
    let StoredLiveness { live, now, .. } = StoredLiveness::load(console)?;
    let (key, device) = (key.to_owned(), name_or_fingerprint.to_owned());
    let released = console
        .db
        .write_blocking("activations.release", move |tx| {
            let act = Act::new(tx, &actor, now.wall);
            super::release_named(&act, live.at(now), &key, &device)
        })?;
    let Released { license, device } = released;
    let line = format!(
        "device {} ({}) no longer holds a slot of {}",
        device.machine_id,
        device.hardware_id,
        license.key.formatted()
    );
    let released = json!({
        "license_key": license.key,
        "hardware_id": device.hardware_id,
        "machine_id": device.machine_id,
    });
    console.show_line(&released, &line)
}
