//! Names of things: told apart by type, so that a device is never asked for by the number of a license.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// Names one customer.
    CustomerId
);
id!(
    /// Names one license; its key is what the customer knows.
    LicenseId
);
id!(
    /// Names one device of one license.
    DeviceId
);
id!(
    /// Names one session to administrators; its token is what the program knows.
    SessionId
);
id!(
    /// Names one release.
    ReleaseId
);

id!(
    /// Names one administrator.
    AdminId
);
id!(
    /// Names one login of an administrator.
    AdminSessionId
);

/// What a program proves its session with: 122 random bits. Never printed: whoever has it can end
/// the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionToken([u8; 16]);

impl SessionToken {
    /// The token of these bytes, as the file has them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The token as the file has it.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads a UUID in each form in which libraries write one: with or without hyphens, in braces, as a URN,
    /// in either case. All of them are the same 128 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = uuid::Uuid::try_parse(text).ok()?;
        Some(Self(uuid.into_bytes()))
    }

    /// The wire's form, for the one program that may know it.
    pub fn reveal(&self) -> String {
        uuid::Uuid::from_bytes(self.0).hyphenated().to_string()
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_in_every_form_of_a_uuid_and_never_printed() {
        let text = "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab";
        let token = SessionToken::parse(text).unwrap();
        assert_eq!(token.reveal(), text);
        for same in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
        ] {
            assert_eq!(SessionToken::parse(&same), Some(token), "{same}");
        }
        for wrong in [
            "",
            "0b0e7a54-9d0c-4e5f-8a6b-0123456789a",
            "{0b0e7a54-9d0c-4e5f-8a6b-0123456789ab",
            "0b0e7a549d0c-4e5f-8a6b-0123456789ab",
            " 0b0e7a54-9d0c-4e5f-8a6b-0123456789ab",
        ] {
            assert_eq!(SessionToken::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{token:?}").contains("0b0e"));
    }
}
