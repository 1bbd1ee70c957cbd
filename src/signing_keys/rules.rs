//! What a key rotation does, depending on which private keys are present.

use crate::error::{Error, Result};

/// The role of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Signs everything.
    Current,
    /// Becomes current at the next rotation. It is published before, so that programs already accept it by then.
    Next,
    /// Retired. Still needed to verify what it has signed.
    Previous,
}

impl Role {
    const ALL: [Self; 3] = [Self::Current, Self::Next, Self::Previous];

    /// Its name in the database.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }

    /// The role with this name in the database.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Which private keys are on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeysPresent {
    pub(super) current: bool,
    pub(super) next: bool,
}

/// What a rotation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// The next key becomes current and a new next one is generated. Programs that pin both keys are not affected.
    Normal,
    /// The current key stays; the lost next one is replaced.
    RenewNext,
    /// Both are lost and both are replaced. Every program and site that verifies has to be given the new ones.
    FromScratch,
}

/// What a rotation does if private keys are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostKeys {
    /// It refuses to replace them.
    Refuse,
    /// It replaces them: the operator confirms that they are permanently lost.
    Replace,
}

/// What a rotation has to do, given which keys are `present`.
pub(super) fn plan_rotation(present: KeysPresent, lost: LostKeys) -> Result<Rotation> {
    match (present.next, present.current, lost) {
        (true, ..) => Ok(Rotation::Normal),
        (false, true, LostKeys::Replace) => Ok(Rotation::RenewNext),
        (false, false, LostKeys::Replace) => Ok(Rotation::FromScratch),
        (false, _, LostKeys::Refuse) => Err(Error::State(
            "the file of the next signing key is missing: restore the folder `signing` beside the database \
             from a copy; if it is lost, `license-server config rotate-signing-key --lost` generates a new \
             one, which every program and site that verifies has to be given"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpublished_keys_are_used_only_if_the_operator_says_that_the_old_ones_are_lost() {
        for (current, next, lost, expected) in [
            (true, true, LostKeys::Refuse, Some(Rotation::Normal)),
            (true, true, LostKeys::Replace, Some(Rotation::Normal)),
            (false, true, LostKeys::Refuse, Some(Rotation::Normal)),
            (true, false, LostKeys::Refuse, None),
            (true, false, LostKeys::Replace, Some(Rotation::RenewNext)),
            (false, false, LostKeys::Refuse, None),
            (false, false, LostKeys::Replace, Some(Rotation::FromScratch)),
        ] {
            let rotation = plan_rotation(KeysPresent { current, next }, lost);
            assert_eq!(rotation.ok(), expected, "{current} {next} {lost:?}");
        }
    }
}
