//! A model of a shop with several products, written from the contracts alone: without database, threads or caches. If it
//! differs from the server, one of them is wrong.

use std::collections::{BTreeMap, BTreeSet};

use license_server::clock::UnixMs;
use license_server::id::{CustomerId, LicenseId, ProductId, SessionToken};
use license_server::licenses::LicenseKey;
use license_server::version::Version;

use crate::in_process::DAY_MS;

/// Everything that a backup holds.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) products: Vec<Product>,
    pub(super) customers: Vec<Customer>,
    pub(super) licenses: Vec<License>,
}

#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) id: ProductId,
    pub(super) archived: bool,
    /// The API key, by its number among all that were ever issued.
    pub(super) key: usize,
    /// Keys that were rotated out, and until when each is accepted.
    pub(super) retired: BTreeMap<usize, UnixMs>,
    pub(super) flags: BTreeMap<String, bool>,
    /// The releases, the first one first.
    pub(super) releases: Vec<(Version, UnixMs)>,
}

#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) id: CustomerId,
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Suspended,
    Revoked,
}

#[derive(Clone, Debug)]
pub(super) struct License {
    pub(super) id: LicenseId,
    pub(super) key: LicenseKey,
    pub(super) product: usize,
    pub(super) customer: Option<usize>,
    pub(super) state: State,
    pub(super) device_limit: usize,
    pub(super) term: Term,
    pub(super) features: String,
    pub(super) updates_until: Option<UnixMs>,
    pub(super) devices: BTreeSet<usize>,
    /// The session that was started last.
    pub(super) session: Option<Session>,
}

/// When a license ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Never,
    At(UnixMs),
    /// So many days after the first activation.
    Pending(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) token: SessionToken,
    device: usize,
    /// Why it ended; `None` while it runs.
    ended: Option<&'static str>,
}

/// A refusal by its code, with the reason of an ended session after it.
pub(super) type Outcome<T> = Result<T, String>;

fn refused<T>(code: &str) -> Outcome<T> {
    Err(code.to_owned())
}

impl Product {
    /// What is released now: newer than everything before.
    pub(super) fn next_version(&self) -> Version {
        Version::new(1, u64::try_from(self.releases.len()).unwrap(), 0)
    }
}

impl License {
    /// Whether a program of the release of this number may start on it. A version that is not released yet is newer
    /// than the last release.
    fn covers(&self, product: &Product, release: usize) -> bool {
        let released = product.releases.get(release);
        match (self.updates_until, released.or(product.releases.last())) {
            (Some(until), Some((_, released_at))) => *released_at <= until,
            _ => true,
        }
    }

    fn running(&mut self) -> Option<&mut Session> {
        self.session
            .as_mut()
            .filter(|session| session.ended.is_none())
    }

    fn end_session(&mut self, reason: &'static str) {
        if let Some(session) = self.running() {
            session.ended = Some(reason);
        }
    }
}

impl World {
    /// The product of an API key.
    pub(super) fn product_of(&self, key: usize, now: UnixMs) -> Outcome<usize> {
        let accepts = |product: &Product| {
            let retired = product.retired.get(&key);
            !product.archived && (product.key == key || retired.is_some_and(|until| now < *until))
        };
        let product = self.products.iter().position(accepts);
        product.ok_or_else(|| "invalid_api_key".to_owned())
    }

    /// Replaces the API key of a product by a new one; the old one is accepted for so many days.
    pub(super) fn rotate(&mut self, product: usize, new: usize, overlap_days: u32, now: UnixMs) {
        let product = &mut self.products[product];
        let old = std::mem::replace(&mut product.key, new);
        if overlap_days == 0 {
            product.retired.clear();
        } else {
            product.retired.insert(old, days_after(now, overlap_days));
        }
    }

    /// Archives a product for ever.
    pub(super) fn archive(&mut self, product: usize) -> Outcome<()> {
        if self.products[product].archived {
            return refused("product_archived");
        }
        let in_use = self.products.iter().filter(|product| !product.archived);
        if in_use.count() < 2 {
            return refused("last_product");
        }
        let mut licenses = self.licenses.iter_mut();
        if licenses.any(|license| license.product == product && license.running().is_some()) {
            return refused("sessions_running");
        }
        self.products[product].archived = true;
        Ok(())
    }

    /// The license of a call, if it can be used.
    fn usable(&self, key: usize, license: usize, now: UnixMs) -> Outcome<&License> {
        let product = self.product_of(key, now)?;
        let license = self
            .licenses
            .get(license)
            .filter(|license| license.product == product);
        let Some(license) = license else {
            return refused("license_not_found");
        };
        match (license.state, license.term) {
            (State::Suspended | State::Revoked, _) => refused("license_suspended"),
            (State::Active, Term::At(until)) if now > until => refused("license_expired"),
            (State::Active, _) => Ok(license),
        }
    }

    /// Whether the device took a slot now.
    pub(super) fn activate(&mut self, call: Call) -> Outcome<bool> {
        let license = self.usable(call.key, call.license, call.now)?;
        if license.devices.contains(&call.device) {
            return Ok(false);
        }
        if license.devices.len() >= license.device_limit {
            return refused("device_limit_reached");
        }
        let license = &mut self.licenses[call.license];
        license.devices.insert(call.device);
        if let Term::Pending(days) = license.term {
            license.term = Term::At(days_after(call.now, days));
        }
        Ok(true)
    }

    pub(super) fn deactivate(&mut self, call: Call) -> Outcome<()> {
        let license = self.usable(call.key, call.license, call.now)?;
        if !license.devices.contains(&call.device) {
            return refused("device_not_activated");
        }
        let license = &mut self.licenses[call.license];
        if license
            .running()
            .is_some_and(|session| session.device == call.device)
        {
            license.end_session("normal");
        }
        license.devices.remove(&call.device);
        Ok(())
    }

    /// Whether a session starts; [`World::started`] adds it. The program has the release of this number.
    pub(super) fn start(&mut self, call: Call, release: usize) -> Outcome<()> {
        let license = self.usable(call.key, call.license, call.now)?;
        if !license.covers(&self.products[license.product], release) {
            return refused("version_not_covered");
        }
        if !license.devices.contains(&call.device) {
            return refused("device_not_activated");
        }
        match self.licenses[call.license].running() {
            Some(_) => refused("session_active"),
            None => Ok(()),
        }
    }

    pub(super) fn started(&mut self, call: Call, token: SessionToken) {
        self.licenses[call.license].session = Some(Session {
            token,
            device: call.device,
            ended: None,
        });
    }

    /// A heartbeat of the latest session of the license.
    pub(super) fn heartbeat(&mut self, call: Call) -> Outcome<()> {
        let usable = self.usable(call.key, call.license, call.now).map(drop);
        if let Err(code) = usable {
            if code.starts_with("license_") && code != "license_not_found" {
                self.licenses[call.license].end_session("forced");
            }
            return Err(code);
        }
        match self.licenses[call.license].session {
            None => refused("session_not_found"),
            Some(Session {
                ended: Some(reason),
                ..
            }) => Err(format!("session_ended {reason}")),
            Some(_) => Ok(()),
        }
    }

    /// The end of the latest session of the license; with its key, or with the token alone.
    pub(super) fn end(&mut self, call: Call, with_key: bool) -> Outcome<&'static str> {
        let product = self.product_of(call.key, call.now)?;
        let license = self
            .licenses
            .get_mut(call.license)
            .filter(|license| license.product == product);
        let Some(license) = license else {
            return refused(if with_key {
                "license_not_found"
            } else {
                "session_not_found"
            });
        };
        license.end_session("normal");
        match license.session {
            None => refused("session_not_found"),
            Some(session) => Ok(session.ended.unwrap_or("normal")),
        }
    }

    /// The code of a verification, and whether a session is active.
    pub(super) fn verify(&self, call: Call, release: usize) -> Outcome<(String, bool)> {
        self.product_of(call.key, call.now)?;
        let code = match self.usable(call.key, call.license, call.now) {
            Err(code) => code,
            Ok(license) if !license.covers(&self.products[license.product], release) => {
                "version_not_covered".to_owned()
            }
            Ok(license) if !license.devices.contains(&call.device) => {
                "device_not_activated".to_owned()
            }
            Ok(_) => "valid".to_owned(),
        };
        let session = self.licenses.get(call.license).and_then(|it| it.session);
        let running = session.is_some_and(|session| session.ended.is_none());
        Ok((code.clone(), running && code != "license_not_found"))
    }

    /// Whether the license is now in this state; a revoked one stays so.
    pub(super) fn set_state(&mut self, license: usize, state: State) -> Outcome<()> {
        let license = &mut self.licenses[license];
        if license.state == State::Revoked && state != State::Revoked {
            return refused("license_revoked");
        }
        license.state = state;
        Ok(())
    }

    /// After days without a heartbeat no session runs.
    pub(super) fn end_sessions(&mut self, reason: &'static str) {
        for license in &mut self.licenses {
            license.end_session(reason);
        }
    }
}

/// A call of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The API key, by its number among all that were ever issued.
    pub(super) key: usize,
    /// The license; one more than there are is a key that was never issued.
    pub(super) license: usize,
    pub(super) device: usize,
    pub(super) now: UnixMs,
}

pub(super) fn days_after(moment: UnixMs, days: u32) -> UnixMs {
    UnixMs(moment.0 + DAY_MS * i64::from(days))
}
