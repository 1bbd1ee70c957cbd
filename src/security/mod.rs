//! What keeps secrets and keeps out floods. Knows nothing of licenses.

pub mod password;
pub mod rate_limit;
pub mod secret;
