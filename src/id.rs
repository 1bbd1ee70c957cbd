//! Typed ids, so that the compiler refuses, say, a license id where a device id belongs.

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
    /// The id of a product. Commands and addresses know its slug instead.
    ProductId
);
id!(
    /// The id of a plan. Commands and addresses know its code instead.
    PlanId
);
id!(
    /// The id of a customer.
    CustomerId
);
id!(
    /// The id of a license. Customers know its key instead.
    LicenseId
);
id!(
    /// The id of a device of a license.
    DeviceId
);
id!(
    /// The id of a session, for administrators. Programs know its token instead.
    SessionId
);
id!(
    /// The id of a release.
    ReleaseId
);

id!(
    /// The id of an administrator.
    AdminId
);
id!(
    /// The id of a login of an administrator.
    AdminSessionId
);

impl ProductId {
    /// The product of the first start.
    pub const FIRST: Self = Self(1);
}

/// The secret by which a program identifies its session: a random UUID (122 random bits). Never printed: it is all
/// that is needed to end the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionToken([u8; 16]);

impl SessionToken {
    /// The token of these bytes, as stored in the database.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, as stored in the database.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses a UUID in every form that libraries write: with or without hyphens, in braces, as a URN, in either
    /// case. All of them denote the same 128 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = uuid::Uuid::try_parse(text).ok()?;
        Some(Self(uuid.into_bytes()))
    }

    /// The text form for the client that owns the session.
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
    fn a_token_is_parsed_in_every_form_of_a_uuid_and_never_printed() {
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
