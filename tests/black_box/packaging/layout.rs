//! The files of the Debian package, laid out as `Cargo.toml` says, with the executable of these tests in it: a release
//! is built from the same list by `cargo deb`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_license-server");
/// Where `Cargo.toml` says that the release's executable and the generated files are.
const RELEASE: &str = "target/release/license-server";
const GENERATED: &str = "target/packaging/";

/// The repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `[package]` of `Cargo.toml`.
fn package() -> Table {
    let text = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let manifest: Table = toml::from_str(&text).unwrap();
    manifest["package"].as_table().unwrap().clone()
}

fn text<'a>(table: &'a Table, key: &str) -> &'a str {
    table[key].as_str().unwrap_or_else(|| panic!("no {key}"))
}

/// The sources, the destination below `/`, and the mode of every entry of the list, with patterns replaced by the files
/// that they match. Generated files are in `generated`.
fn assets(deb: &Table, generated: &Path) -> Vec<(PathBuf, PathBuf, u32)> {
    let mut found = Vec::new();
    for asset in deb["assets"].as_array().unwrap() {
        let [source, to, mode] = [0, 1, 2].map(|index| asset[index].as_str().unwrap());
        let mode = u32::from_str_radix(mode, 8).unwrap();
        let sources = if source == RELEASE {
            vec![PathBuf::from(EXECUTABLE)]
        } else if let Some(name) = source.strip_prefix(GENERATED) {
            vec![generated.join(name)]
        } else if let Some((folder, ending)) = source.split_once('*') {
            matching(&top().join(folder), ending)
        } else {
            vec![top().join(source)]
        };
        assert!(!sources.is_empty(), "{source} matches no file");
        for source in sources {
            let to = if to.ends_with('/') {
                Path::new(to).join(source.file_name().unwrap())
            } else {
                PathBuf::from(to)
            };
            found.push((source, to, mode));
        }
    }
    found
}

fn matching(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// Makes the tree of a package, `folder/tree`, without its control files.
fn make_tree(deb: &Table, folder: &Path) -> PathBuf {
    let generated = folder.join("generated");
    run(Command::new(top().join("packaging/generate.sh"))
        .arg(EXECUTABLE)
        .arg(&generated));
    let tree = folder.join("tree");
    for (source, to, mode) in assets(deb, &generated) {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&source, &to).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        fs::set_permissions(&to, PermissionsExt::from_mode(mode)).unwrap();
    }
    // Debug information is most of a test's executable, and would be copied a dozen times.
    run(Command::new("strip").arg(tree.join("usr/bin/license-server")));
    for entry in walk(&tree).into_iter().filter(|path| path.is_dir()) {
        fs::set_permissions(entry, PermissionsExt::from_mode(0o755)).unwrap();
    }
    tree
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    crate::support::files_below(folder)
}

/// Makes `folder/<name>.deb` for each name, with the version of this crate and `+<name>`.
pub fn make_packages(folder: &Path, names: &[&str]) {
    let package = package();
    let deb = package["metadata"]["deb"].as_table().unwrap();
    let tree = make_tree(deb, folder);
    let control = tree.join("DEBIAN");
    fs::create_dir(&control).unwrap();
    let scripts = top().join(text(deb, "maintainer-scripts"));
    for script in ["postinst", "prerm", "postrm"] {
        fs::copy(scripts.join(script), control.join(script)).unwrap();
        fs::set_permissions(control.join(script), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut settings = String::new();
    for file in deb["conf-files"].as_array().unwrap() {
        writeln!(settings, "{}", file.as_str().unwrap()).unwrap();
    }
    fs::write(control.join("conffiles"), settings).unwrap();
    let architecture = Command::new("dpkg").arg("--print-architecture").output();
    let architecture = String::from_utf8(architecture.unwrap().stdout).unwrap();
    for name in names {
        let fields = format!(
            "Package: {}\nVersion: {}+{name}\nArchitecture: {}\nMaintainer: {}\nDepends: {}\nDescription: {}\n",
            text(&package, "name"),
            text(&package, "version"),
            architecture.trim(),
            text(deb, "maintainer"),
            text(deb, "depends"),
            text(&package, "description"),
        );
        fs::write(control.join("control"), fields).unwrap();
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(&tree)
            .arg(folder.join(format!("{name}.deb"))));
    }
}

/// Makes the archive of the portable executable, from the executable and the generated files of [`make_packages`].
pub fn make_archive(folder: &Path, name: &str) {
    run(Command::new(top().join("packaging/portable.sh"))
        .arg(folder.join("tree/usr/bin/license-server"))
        .arg(folder.join("generated"))
        .arg(folder.join(name)));
}

/// Where the package puts each file, below `/`.
pub fn installed_files() -> Vec<PathBuf> {
    let package = package();
    let deb = package["metadata"]["deb"].as_table().unwrap();
    let files = assets(deb, Path::new("generated"));
    files.into_iter().map(|(_, to, _)| to).collect()
}

/// The value of a setting in the shipped settings of the package.
pub fn setting(section: &str, key: &str) -> Value {
    let text = fs::read_to_string(top().join("packaging/license-server.toml")).unwrap();
    let settings: Table = toml::from_str(&text).unwrap();
    settings[section][key].clone()
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
