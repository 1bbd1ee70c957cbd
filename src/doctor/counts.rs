//! Whether what the database counts itself is what there is.

use super::CheckResult;
use crate::db::Db;
use crate::figures;

pub(super) fn check(db: &Db) -> CheckResult {
    let wrong = db.read_blocking(figures::wrong_counts);
    let wrong = wrong.map_err(|error| error.to_string())?;
    if wrong.is_empty() {
        return Ok("ok".to_owned());
    }
    let wrong = wrong.join(", ");
    Err(format!(
        "{wrong}: not what is counted, so lists and figures of the panel may be wrong; licenses and sessions are not \
         affected. Another program has changed the database without its triggers: restore a backup made before that"
    ))
}
