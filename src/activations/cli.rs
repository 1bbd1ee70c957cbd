//! Command line: `license-server license release-device`.

use serde_json::json;

use crate::audit::Actor;
use crate::console::Console;
use crate::error::Result;
use crate::licenses;
use crate::sessions::cli::OfflineLiveness;

/// Frees the slot of the device with this fingerprint or name.
pub fn release(console: &Console, key: &str, name_or_fingerprint: &str) -> Result<()> {
    let actor = Actor::command_line(&console.user);
    let OfflineLiveness { live, now, .. } = OfflineLiveness::load(console)?;
    let license = console
        .db
        .read_blocking(|reader| licenses::by_typed_key(reader, key))?;
    let (id, device) = (license.id, name_or_fingerprint.to_owned());
    let device = console
        .db
        .write_blocking("activations.release", move |tx| {
            super::release_named_device(tx, &live, id, &device, &actor, now)
        })?;
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
