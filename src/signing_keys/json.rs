//! Public keys as JSON, for the handlers of the command line and of the panel.

use serde_json::{Value, json};

use super::Published;
use crate::security::signing::PublicKey;

/// Key ids, keys in base64 and as PEM.
pub fn published(keys: &Published) -> Value {
    let previous = keys.previous.iter().map(|retired| {
        let mut document = key(&retired.public);
        if let Some(members) = document.as_object_mut() {
            members.insert("retired_at".to_owned(), retired.at.rfc3339().into());
        }
        document
    });
    json!({
        "current": key(&keys.current),
        "next": key(&keys.next),
        "previous": previous.collect::<Vec<_>>(),
    })
}

fn key(public: &PublicKey) -> Value {
    json!({ "key_id": public.id(), "public_key": public.base64(), "pem": public.pem() })
}
