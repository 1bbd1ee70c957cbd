//! Valid values of rate limits.

use super::{Limit, Rate};
use crate::error::{Error, Faults, Result};

const RATE_MAX: u32 = 1_000_000;
/// Most new trials per hour: the limiter looks at each of them.
const TRIALS_MAX: u32 = 10_000;

/// Checks the range of the numbers.
pub(super) fn check(limit: &Limit) -> Result<()> {
    let (calls, burst) = match limit.rate {
        Rate::PerMinute { calls, burst } => (calls, burst),
        Rate::PerHour { trials } if trials <= TRIALS_MAX => return Ok(()),
        Rate::PerHour { .. } => {
            return Err(Error::invalid(
                "per-hour",
                format!("must be 0..{TRIALS_MAX}"),
            ));
        }
    };
    let mut faults = Faults::default();
    if calls > RATE_MAX {
        let problem = format!("must be 0..{RATE_MAX}");
        faults.add(Error::invalid("per-minute", problem));
    }
    if !(1..=RATE_MAX).contains(&burst) {
        faults.add(Error::invalid("burst", format!("must be 1..{RATE_MAX}")));
    }
    faults.finish()
}
