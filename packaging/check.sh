#!/bin/sh
# Usage: check.sh EXECUTABLE GLIBC [PATH…]
# Fails if the executable names one of the paths, so that other folders would make other bytes, or if it needs a glibc newer
# than GLIBC.
set -eu
executable=$1
glibc=$2
shift 2

fail() {
  echo "check.sh: $executable $1" >&2
  exit 1
}

for path in "$@"; do
  # With a slash, so that no longer name is found.
  ! grep -qaF -- "${path%/}/" "$executable" || fail "names the folder $path"
done
versions=$(readelf --version-info --wide "$executable")
# Packed relocations need a name without a number, which glibc has from 2.36 on.
case $versions in *GLIBC_ABI_DT_RELR*) fail "needs glibc 2.36" ;; esac
needed=$(printf '%s\n' "$versions" | sed -n 's/.*Name: GLIBC_\([0-9.]*\) .*/\1/p' | sort -Vu | tail -n 1)
[ -n "$needed" ] || fail "names no version of glibc"
[ "$(printf '%s\n' "$needed" "$glibc" | sort -V | tail -n 1)" = "$glibc" ] || fail "needs glibc $needed"
echo "$executable needs glibc $needed"
