//! The files of a data folder that an archive has beside the database.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::{FOLDERS, SMALL_MAX, SmallFile};
use crate::error::{Doing, Error, Result};

/// Maximum depth of folders in one of [`FOLDERS`].
const DEPTH: u32 = 3;

/// All of them, in the order of [`FOLDERS`], in each folder sorted by name.
///
/// # Errors
/// As [`of_folder`].
pub fn all(data: &Path) -> Result<Vec<SmallFile>> {
    let folders = FOLDERS.iter().map(|folder| of_folder(data, folder));
    let files: Vec<Vec<SmallFile>> = folders.collect::<Result<_>>()?;
    Ok(files.into_iter().flatten().collect())
}

/// All files below `folder` in the data folder, sorted by name.
///
/// # Errors
/// [`Error::State`] for a link or anything else that is not a regular file.
pub fn of_folder(data: &Path, folder: &str) -> Result<Vec<SmallFile>> {
    let mut found = Vec::new();
    walk(data, Path::new(folder), DEPTH, &mut found)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(data: &Path, below: &Path, depth: u32, found: &mut Vec<SmallFile>) -> Result<()> {
    let entries = match fs::read_dir(data.join(below)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.doing("read the data folder")?,
    };
    for entry in entries {
        let entry = entry.doing("read the data folder")?;
        let (below, kind) = (below.join(entry.file_name()), entry.file_type());
        let kind = kind.doing("read the data folder")?;
        let name = below.to_string_lossy();
        // Unfinished files of a process that was killed, and hidden files of editors.
        let is_temporary = below.extension().is_some_and(|end| end == "new")
            || entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_temporary {
            continue;
        }
        let path = data.join(&below);
        let path = path.display();
        if kind.is_dir() && depth == 0 {
            return Err(Error::State(format!(
                "{path} is a folder in too many others for a backup: move it elsewhere"
            )));
        }
        if kind.is_dir() {
            walk(data, &below, depth - 1, found)?;
            continue;
        }
        if !kind.is_file() {
            return Err(Error::State(format!(
                "{path} is not a regular file: put the real file there"
            )));
        }
        let bytes = read_small(&data.join(&below))?;
        let name = name.into_owned();
        found.extend(bytes.map(|bytes| SmallFile { name, bytes }));
    }
    Ok(())
}

/// The content of a file, of one that is too large only its beginning. `None` if the file was just replaced, for example
/// by a renewed certificate.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.doing("read a key")?,
    };
    let mut bytes = Vec::new();
    let read = file.take(SMALL_MAX + 1).read_to_end(&mut bytes);
    read.doing("read a key")?;
    Ok(Some(bytes))
}
