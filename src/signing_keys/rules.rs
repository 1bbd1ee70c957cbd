//! Which key pair takes whose place.

use crate::error::{Error, Result};

/// What a key pair is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Everything is signed with it.
    Current,
    /// It comes into force at the next rotation, and is told before, so that programs know it by then.
    Next,
    /// What was signed with it may still be looked at.
    Previous,
}

impl Role {
    const ALL: [Self; 3] = [Self::Current, Self::Next, Self::Previous];

    /// The word in the file.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }

    /// The role of a word.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Which private halves are on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeysPresent {
    pub(super) current: bool,
    pub(super) next: bool,
}

/// What a rotation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// The next one comes into force, another one is made: nobody who knows both notices.
    Over,
    /// The one in force stays; the lost next one is replaced.
    RenewNext,
    /// Both are lost, both are replaced: whoever verifies has to be given the new ones.
    Anew,
}

/// What a rotation does with what is `there`; `lost` is the operator's word that the rest is gone for good.
pub(super) fn turn(there: KeysPresent, lost: bool) -> Result<Rotation> {
    match (there.next, there.current, lost) {
        (true, ..) => Ok(Rotation::Over),
        (false, true, true) => Ok(Rotation::RenewNext),
        (false, false, true) => Ok(Rotation::Anew),
        (false, _, false) => Err(Error::State(
            "the file of the next signing key is missing: restore the folder `signing` beside the database \
             from a copy; if it is lost, `license-server config rotate-signing-key --lost` makes another \
             one, which every program and site that verifies has to be given"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_that_they_are_lost_gets_keys_that_nobody_knows() {
        for (current, next, lost, expected) in [
            (true, true, false, Some(Rotation::Over)),
            (true, true, true, Some(Rotation::Over)),
            (false, true, false, Some(Rotation::Over)),
            (true, false, false, None),
            (true, false, true, Some(Rotation::RenewNext)),
            (false, false, false, None),
            (false, false, true, Some(Rotation::Anew)),
        ] {
            let turned = turn(KeysPresent { current, next }, lost);
            assert_eq!(turned.ok(), expected, "{current} {next} {lost}");
        }
    }
}
