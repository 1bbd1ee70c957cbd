//! Valid values of rate limits.

use super::Limit;
use crate::error::{Error, Result};

const RATE_MAX: u32 = 1_000_000;

/// Checks the range of both numbers.
pub(super) fn check(limit: &Limit) -> Result<()> {
    if limit.per_minute > RATE_MAX {
        return Err(Error::invalid(
            "per-minute",
            format!("must be 0..{RATE_MAX}"),
        ));
    }
    if !(1..=RATE_MAX).contains(&limit.burst) {
        return Err(Error::invalid("burst", format!("must be 1..{RATE_MAX}")));
    }
    Ok(())
}
