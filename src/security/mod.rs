//! Cryptography, passwords, secret files, rate limits and outbound calls. Does not depend on licenses.

pub mod address;
pub mod client_address;
mod common_phrases;
mod common_words;
pub mod data_folder;
pub mod egress;
pub mod password;
pub mod pem;
pub mod private_file;
pub mod rate_limit;
pub mod run_as;
pub mod secret;
pub mod signing;
pub mod totp;
