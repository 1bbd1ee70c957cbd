#!/bin/sh
# Usage: generate.sh EXECUTABLE FOLDER
# Makes the files of the package that come from the executable: man page, completions, and the compressed changelog.
set -eu
executable=$1
folder=$2
top=$(dirname "$0")/..

mkdir -p "$folder"
"$executable" man | gzip -9n >"$folder/license-server.1.gz"
"$executable" completions bash >"$folder/license-server.bash"
"$executable" completions zsh >"$folder/_license-server"
"$executable" completions fish >"$folder/license-server.fish"
gzip -9nc "$top/CHANGELOG.md" >"$folder/changelog.gz"
