//! What the panel reports once after a form was saved, such as "Saved.". The server keeps it for the page that the
//! redirect leads to, and not in the address: a reloaded or shared address must not report it again.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rocket::Request;

use super::guards::RequestTime;
use super::product_param::PRODUCT;
use crate::clock::Tick;
use crate::id::AdminId;

/// How many reports wait for their page at most; a report is fetched at once, unless the browser is gone.
const WAITING_MAX: usize = 256;
/// How long a report waits for its page.
const WAITING_DURATION_MAX: Duration = Duration::from_mins(2);

/// The reports that wait for their page. Managed by Rocket.
#[derive(Debug, Default)]
pub struct Flashes(Mutex<VecDeque<Flash>>);

#[derive(Debug)]
struct Flash {
    admin: AdminId,
    /// The page that shows it, as [`page_of`] writes it.
    page: String,
    done: &'static str,
    at: Tick,
}

impl Flashes {
    fn keep(&self, flash: Flash) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|old| flash.at.since(old.at) < WAITING_DURATION_MAX);
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(flash);
    }

    /// Takes the latest report for the page at `address`, the path and query of a request of the administrator `admin`.
    pub fn take(&self, admin: AdminId, address: &str, now: Tick) -> Option<&'static str> {
        let page = page_of(address);
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest = None;
        waiting.retain(|flash| {
            let is_for_page = flash.admin == admin && flash.page == page;
            if is_for_page && now.since(flash.at) < WAITING_DURATION_MAX {
                latest = Some(flash.done);
            }
            !is_for_page
        });
        latest
    }
}

/// An address without its fragment and the chosen product, which every response adds to its links.
fn page_of(address: &str) -> String {
    let address = address.split('#').next().unwrap_or_default();
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != PRODUCT);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    format!("{path}?{query}")
}

/// The administrator who sent a request.
#[derive(Default)]
struct Sender(OnceLock<AdminId>);

/// Sets the administrator who sent `request`.
pub fn set_sender(request: &Request<'_>, admin: AdminId) {
    request.local_cache(Sender::default).0.get_or_init(|| admin);
}

/// The administrator who sent `request`; `None` without a login.
pub fn sender(request: &Request<'_>) -> Option<AdminId> {
    request.local_cache(Sender::default).0.get().copied()
}

/// Keeps the report `done` for the page at `path`, to which the response to `request` redirects.
pub(super) fn keep(request: &Request<'_>, path: &str, done: &'static str) {
    let sender = sender(request);
    let RequestTime(now) = RequestTime::of(request);
    if let (Some(flashes), Some(admin)) = (request.rocket().state::<Flashes>(), sender) {
        flashes.keep(Flash {
            admin,
            page: page_of(path),
            done,
            at: now.tick,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: AdminId = AdminId(1);
    const EARLY: Tick = Tick::START;
    const LATE: Tick = Tick(WAITING_DURATION_MAX);

    fn keep(flashes: &Flashes, path: &str, at: Tick) {
        flashes.keep(Flash {
            admin: ADA,
            page: page_of(path),
            done: "saved",
            at,
        });
    }

    #[test]
    fn a_report_is_given_once_to_its_administrator_on_its_page() {
        let flashes = Flashes::default();
        keep(&flashes, "/a?q=%C3%A4&product=b#part", EARLY);
        let page = "/a?product=c&q=%c3%a4";
        assert_eq!(flashes.take(AdminId(2), page, EARLY), None);
        assert_eq!(flashes.take(ADA, "/b?q=%c3%a4", EARLY), None);
        assert_eq!(flashes.take(ADA, "/a", EARLY), None);
        assert_eq!(flashes.take(ADA, page, EARLY), Some("saved"));
        assert_eq!(flashes.take(ADA, page, EARLY), None);
    }

    #[test]
    fn reports_that_are_not_fetched_are_forgotten() {
        let flashes = Flashes::default();
        keep(&flashes, "/a", EARLY);
        assert_eq!(flashes.take(ADA, "/a", LATE), None);
        for at in [EARLY, LATE] {
            for _ in 0..=WAITING_MAX {
                keep(&flashes, "/a", at);
            }
            assert_eq!(flashes.0.lock().unwrap().len(), WAITING_MAX);
        }
    }
}
