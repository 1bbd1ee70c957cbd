//! Cryptography, passwords, secret files and rate limits. Does not depend on licenses.

pub mod client_address;
mod common_phrases;
mod common_words;
pub mod data_folder;
pub mod monitor_networks;
pub mod password;
pub mod pem;
pub mod private_file;
pub mod rate_limit;
pub mod run_as;
pub mod secret;
pub mod signing;
pub mod totp;
