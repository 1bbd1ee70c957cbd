//! Outbound requests: over HTTPS only, and to checked addresses where the host was not chosen by the operator.

pub mod address;
pub mod egress;
