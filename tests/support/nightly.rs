//! The nightly check of the database, at the time of a test.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Server;

impl Server {
    /// Lets the nightly check begin when the server starts, whatever time it is.
    pub fn check_integrity_now(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let minute = since.as_secs() / 60 % (24 * 60);
        let time = format!("{:02}:{:02}", minute / 60, minute % 60);
        self.set("DATABASE__INTEGRITY_CHECK_AT", &time);
    }
}
