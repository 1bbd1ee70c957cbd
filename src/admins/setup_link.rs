//! The set-up: a one-time link that creates the first owner, available as long as there is no administrator.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Tick;
use crate::error::Result;
use crate::logins::{self, digest};
use crate::security::secret::{self, Secret};

/// How long the link is valid.
const VALID: Duration = Duration::from_mins(30);

/// The link of the set-up, if it is valid. The link is printed once; only its digest is stored, and only in memory.
#[derive(Debug, Default)]
pub struct SetupLink(Mutex<Option<Link>>);

#[derive(Debug)]
struct Link {
    digest: [u8; 32],
    until: Tick,
}

impl SetupLink {
    /// Creates a link that is valid from `now` on, and returns its token. It replaces an older link.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
    pub fn create_link(&self, now: Tick) -> Result<Secret<String>> {
        let token = logins::new_token()?;
        let link = Link {
            digest: digest(token.reveal()),
            until: Tick(now.0 + VALID),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(token)
    }

    /// Whether `token` belongs to a link that is valid at `now`.
    pub fn accepts(&self, token: &str, now: Tick) -> bool {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest(token);
        link.as_ref()
            .is_some_and(|link| secret::constant_time_eq(&link.digest, &digest) && now < link.until)
    }

    /// Makes the link invalid once it has been used.
    pub fn revoke_link(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_valid_for_half_an_hour_and_until_it_is_used() {
        let setup = SetupLink::default();
        let at = |minutes| Tick(Duration::from_mins(minutes));
        assert!(!setup.accepts("", at(0)), "none is open");
        let token = setup.create_link(at(1)).unwrap();
        assert_eq!(token.reveal().len(), 64);
        for (given, minutes, accepted) in [
            (token.reveal().as_str(), 1, true),
            (token.reveal(), 30, true),
            (token.reveal(), 31, false),
            ("", 1, false),
            (&"0".repeat(64), 1, false),
        ] {
            assert_eq!(setup.accepts(given, at(minutes)), accepted, "{minutes}");
        }
        let newer = setup.create_link(at(2)).unwrap();
        assert!(!setup.accepts(token.reveal(), at(2)) && setup.accepts(newer.reveal(), at(2)));
        setup.revoke_link();
        assert!(!setup.accepts(newer.reveal(), at(2)));
    }
}
