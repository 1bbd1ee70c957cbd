//! Passwords: hashed slowly, on purpose, and by two at a time at most, so that logins cost no program its
//! heartbeat.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::secret::{self, Secret};
use crate::error::{Doing, Error, Result};

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over it.
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// Hashes at once.
const AT_ONCE: usize = 2;
/// Fewest characters of a password.
pub const LENGTH_MIN: usize = 12;
/// Most characters of a password.
pub const LENGTH_MAX: usize = 128;

/// Takes turns at hashing; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hasher {
    turns: Arc<Semaphore>,
    /// A hash of what nobody knows: who asks for an unknown name waits as long as for a known one.
    nobody: Arc<str>,
}

/// What a look at a password found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another one.
    Wrong,
    /// It is right.
    Right,
    /// It is right, and was hashed with less effort than is asked for today: this is its new hash.
    Rehashed(String),
}

impl Hasher {
    /// A hasher.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn new() -> Result<Self> {
        // Of the same effort, but never computed: no password has this as its hash.
        let (salt, output) = (secret::random::<16>()?, secret::random::<32>()?);
        let nobody = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params()?).doing("write a hash")?,
            salt: Some(Salt::new(&salt).doing("write a hash")?),
            hash: Some(Output::new(&output).doing("write a hash")?),
        };
        Ok(Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            nobody: nobody.to_string().into(),
        })
    }

    /// The hash of `password`, in PHC form.
    ///
    /// # Errors
    /// When there is no memory or no randomness for it.
    pub async fn hash(&self, password: Secret<String>) -> Result<String> {
        self.in_turn(move || hash(&password)).await
    }

    /// Whether `password` has the hash `known`; for an unknown account, none, it takes as long to say no.
    ///
    /// # Errors
    /// When `known` is no hash.
    pub async fn verify(&self, password: Secret<String>, known: Option<String>) -> Result<Verdict> {
        let nobody = self.nobody.clone();
        self.in_turn(move || {
            let account = known.is_some();
            let known = known.unwrap_or_else(|| nobody.as_ref().to_owned());
            let parsed = PasswordHash::new(&known).doing("read a password hash")?;
            let right = Argon2::default()
                .verify_password(password.reveal().as_bytes(), &parsed)
                .is_ok();
            match (account && right, is_current(&parsed)) {
                (false, _) => Ok(Verdict::Wrong),
                (true, true) => Ok(Verdict::Right),
                (true, false) => Ok(Verdict::Rehashed(hash(&password)?)),
            }
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.doing("wait for a turn at hashing")?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .doing("hash a password")?
    }
}

/// The hash of `password`, in PHC form, at once: for a command.
///
/// # Errors
/// When there is no memory or no randomness for it.
pub fn hash(password: &Secret<String>) -> Result<String> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params()?);
    let salt = secret::random::<16>()?;
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password.reveal().as_bytes(), &salt)
        .doing("hash a password")?;
    Ok(hash.to_string())
}

fn params() -> Result<Params> {
    Params::new(MEMORY_KIB, PASSES, LANES, None).doing("set up password hashing")
}

/// Whether a hash was made with the effort of today.
fn is_current(hash: &PasswordHash) -> bool {
    let number = |name| hash.params.get_decimal(name).unwrap_or(0);
    number("m") >= MEMORY_KIB && number("t") >= PASSES
}

/// Refuses a password that is too short, too long, or that guessers try first; `names` are words about the
/// account that it must not consist of.
///
/// # Errors
/// [`Error::Invalid`] for the field `password`.
pub fn check(password: &str, names: &[&str]) -> Result<()> {
    let length = password.chars().count();
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err(Error::invalid(
            "password",
            format!("must have {LENGTH_MIN} to {LENGTH_MAX} characters"),
        ));
    }
    if is_common(password, names) {
        return Err(Error::invalid("password", "is one that guessers try first"));
    }
    Ok(())
}

/// Whether guessers try it first: one word or run repeated, or made of `names`.
fn is_common(password: &str, names: &[&str]) -> bool {
    let lower = password.to_lowercase();
    let distinct = lower
        .chars()
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    distinct < 5
        || names
            .iter()
            .any(|name| !name.is_empty() && lower == name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn the_right_password_is_known_again_and_no_other() {
        in_a_runtime(async {
            let hasher = Hasher::new().unwrap();
            let word = |text: &str| Secret::new(text.to_owned());
            let hash = hasher.hash(word("correct horse battery")).await.unwrap();
            assert!(
                hash.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"),
                "{hash}"
            );
            let ask = |text, known| hasher.verify(word(text), known);
            let known = Some(hash);
            assert_eq!(
                ask("correct horse battery", known.clone()).await.unwrap(),
                Verdict::Right
            );
            assert_eq!(ask("correct horse", known).await.unwrap(), Verdict::Wrong);
            assert_eq!(ask("", None).await.unwrap(), Verdict::Wrong);
        });
    }

    #[test]
    fn a_weaker_hash_is_replaced() {
        in_a_runtime(async {
            let params = Params::new(8, 1, 1, None).unwrap();
            let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let hash: PasswordHash = weak
                .hash_password_with_salt(b"correct horse battery", &[7; 16])
                .unwrap();
            let hasher = Hasher::new().unwrap();
            let word = Secret::new("correct horse battery".to_owned());
            let told = hasher.verify(word, Some(hash.to_string())).await.unwrap();
            let Verdict::Rehashed(new) = told else {
                panic!("{told:?}")
            };
            assert!(new.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{new}");
        });
    }
}
