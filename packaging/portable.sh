#!/bin/sh
# Usage: portable.sh EXECUTABLE GENERATED FILE.tar.gz
# Makes the archive for machines without dpkg: the executable, and what install.sh puts beside it. GENERATED is a folder
# of generate.sh. The same input and SOURCE_DATE_EPOCH make the same bytes.
set -eu
executable=$1
generated=$2
archive=$3
top=$(dirname "$0")/..

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/license-server"
install -m 755 "$executable" "$folder/license-server/license-server"
install -m 644 "$top/packaging/license-server.service" "$top/packaging/license-server.toml" "$top/LICENSE-MIT" \
  "$top/LICENSE-APACHE" "$generated/license-server.1.gz" "$generated/license-server.bash" \
  "$generated/_license-server" "$generated/license-server.fish" "$folder/license-server/"
tar --create --directory "$folder" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
  --mtime="@${SOURCE_DATE_EPOCH:-0}" license-server | gzip -9n >"$archive"
