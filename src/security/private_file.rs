//! Files that hold keys: for their owner alone, written whole or not at all, and still there after a power cut.

use std::fs::{self, File};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a whole file that only its owner may read, or none. It is on the disk when this returns, by its name.
///
/// # Errors
/// When the disk does not take it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rename(&draft, path)
}

/// Gives a file another name, which holds when this returns.
///
/// # Errors
/// When the disk does not take it.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    // The folder, and the name of the folder: others know these keys by heart from the first start on, and new
    // ones after a power cut would lock them out.
    for folder in to.ancestors().skip(1).take(2) {
        // A relative path ends with nothing: that is where we are.
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
