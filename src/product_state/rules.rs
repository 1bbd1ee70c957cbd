//! The refusal of everything that would change an archived product.

use crate::error::{Error, RefusalKind, Refused};

/// Why a change of something of a product is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The product with this slug is archived.
    Archived(String),
}

impl Refusal {
    /// The error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Archived(_) => "product_archived",
        }
    }

    /// The kind of refusal.
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Archived(_) => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let refused = Refused::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::Archived(slug) => refused.with("product", slug).into(),
        }
    }
}
