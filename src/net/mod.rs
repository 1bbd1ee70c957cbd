//! Outbound requests: HTTPS requests, and the addresses to which the server may send those that a
//! caller causes.

pub mod address;
pub mod egress;
pub mod https;
