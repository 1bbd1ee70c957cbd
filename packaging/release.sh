#!/usr/bin/env bash
# Usage: packaging/release.sh [ARCHITECTURE…]
# Makes a release for amd64 and arm64, or for those named, in target/release-files: Debian packages, archives with the
# portable executable, install.sh, Containerfile, an SBOM, and SHA256SUMS. The same commit is to make the same bytes, in any
# folder and on any machine with the same tools. CONTRIBUTING.md says which tools it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
# Without symbolic links: so the compiler names it.
top=$(pwd -P)

# What each architecture of Debian is called by Rust; the executable runs with glibc 2.28 and newer.
declare -A targets=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu)
glibc=2.28
(($#)) || set -- amd64 arm64
for architecture in "$@"; do
  [[ -n ${targets[$architecture]-} ]] || {
    echo "release.sh: unknown architecture $architecture: use ${!targets[*]}" >&2
    exit 2
  }
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p;/^version/q' Cargo.toml)
build=${CARGO_TARGET_DIR:-$top/target}
out=$top/target/release-files
rm -rf "$out" "$top/target/packaging"
mkdir -p "$out"

# Nothing of this machine gets into the files: neither the time, nor paths, nor its name.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC CARGO_TARGET_DIR=$build CARGO_INCREMENTAL=0
export RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$build=/target --remap-path-prefix=$top=/source"
export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$build=/target"
# mimalloc contains the time of its compilation, which is that of an earlier commit if the folder is used again.
CFLAGS+=' -Wno-builtin-macro-redefined -D__DATE__="" -D__TIME__=""'

cargo fetch --locked
for architecture in "$@"; do
  cargo zigbuild --release --locked --target "${targets[$architecture]}.$glibc"
done

# The generated files are the same for each architecture, so an executable that runs here makes them.
case $(uname -m) in
  aarch64) own=arm64 ;;
  *) own=amd64 ;;
esac
generator=$build/${targets[$own]}/release/license-server
if [[ ! -x $generator ]]; then
  cargo build --release --locked
  generator=$build/release/license-server
fi
packaging/generate.sh "$generator" target/packaging

for architecture in "$@"; do
  target=${targets[$architecture]}
  executable=$build/$target/release/license-server
  packaging/check.sh "$executable" "$glibc" "$top" "$build" "$cargo_home"
  cargo deb --no-build --no-strip --locked --target "$target" \
    --output "$out/license-server_${version}_$architecture.deb"
  packaging/portable.sh "$executable" target/packaging "$out/license-server-$version-linux-$architecture.tar.gz"
done

cp packaging/install.sh packaging/Containerfile "$out/"
cargo cyclonedx --quiet --format json --target "${targets[$1]}" --override-filename license-server.sbom
# It names the folder that it was made in.
sed -E "s,path\+file://$top#(license-server@)?,license-server@,g" license-server.sbom.json \
  >"$out/license-server-$version.sbom.json"
rm license-server.sbom.json
(cd "$out" && sha256sum -- * >SHA256SUMS)
cat "$out/SHA256SUMS"
