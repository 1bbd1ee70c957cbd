//! The rollout of feature flags, their valid values, and the refusals.

use super::Flag;
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::security::secret;

const NAME_MAX: usize = 64;
const DESCRIPTION_MAX: usize = 500;

/// Why a change of a flag is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A flag of this name exists already.
    Exists,
}

impl Refusal {
    /// The error code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Exists => "flag_exists",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::Exists => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let refused = Refused::new(refusal.kind(), refusal.code());
        refused.about("name").into()
    }
}

/// A percentage of licenses.
#[derive(Clone, Copy, Debug)]
pub struct Rollout(pub u8);

/// Whether a license is among the `percent` that `flag` is on for. The result never changes, is independent between
/// flags, and stays true if the percentage grows.
pub fn rollout(flag: &str, license_id: i64, percent: Rollout) -> bool {
    let [a, b, c, d, ..] = secret::sha256(format!("{flag}\n{license_id}").as_bytes());
    u32::from_be_bytes([a, b, c, d]) % 100 < u32::from(percent.0)
}

/// Checks every field.
pub(super) fn check(flag: &Flag) -> Result<()> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let has_name = (1..=NAME_MAX).contains(&flag.name.len()) && flag.name.chars().all(word);
    let description = &flag.description;
    let is_described =
        description.chars().count() <= DESCRIPTION_MAX && !description.contains(char::is_control);
    let described = format!("must be at most {DESCRIPTION_MAX} printable characters");
    let mut faults = Faults::default();
    for (field, is_valid, problem) in [
        ("name", has_name, "must be 1..64 letters, digits, _ - ."),
        ("share", flag.share_percent <= 100, "must be 0..100 percent"),
        ("description", is_described, &*described),
    ] {
        if !is_valid {
            faults.add(Error::invalid(field, problem));
        }
    }
    faults.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_stable_nested_and_has_the_right_size() {
        let on = |percent| {
            (0..10_000)
                .filter(|n| rollout("dark_mode", *n, Rollout(percent)))
                .count()
        };
        assert_eq!((on(0), on(100)), (0, 10_000));
        // The standard deviation is 43; six of them on each side.
        assert!((2240..2760).contains(&on(25)), "{}", on(25));
        for number in 0..1000 {
            assert!(!rollout("x", number, Rollout(10)) || rollout("x", number, Rollout(11)));
        }
        let both = (0..10_000)
            .filter(|n| rollout("a", *n, Rollout(50)) && rollout("b", *n, Rollout(50)))
            .count();
        assert!(
            (2240..2760).contains(&both),
            "flags are independent: {both}"
        );
    }
}
