//! What every door uses: guards in, bodies in, replies out. Knows nothing of licenses.

pub mod body;
pub mod guards;
pub mod page;
pub mod reply;
