//! `license-server demo`
use crate::config::Settings;
use crate::error::Result;
/// x
pub fn run(_: Settings) -> Result<()> {
    Ok(())
}
