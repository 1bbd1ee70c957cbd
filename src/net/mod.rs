//! Outbound HTTPS requests, and the addresses to which they may go if an untrusted caller has chosen the domain.

pub mod address;
pub mod egress;
pub mod https;
