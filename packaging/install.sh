#!/bin/sh
# Usage: sudo sh install.sh license-server-VERSION-linux-ARCHITECTURE.tar.gz
# Installs or upgrades the portable executable as a service. SHA256SUMS must be in the folder of the archive: nothing is
# installed if its checksum differs. Settings and data that exist are kept. On Debian and Ubuntu use the package instead.
set -eu

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

[ $# = 1 ] || fail "name the archive: sudo sh install.sh license-server-VERSION-linux-ARCHITECTURE.tar.gz"
archive=$1
name=$(basename "$archive")
folder=$(cd "$(dirname "$archive")" && pwd)
[ -f "$folder/$name" ] || fail "$archive does not exist"
[ -f "$folder/SHA256SUMS" ] || fail "$folder/SHA256SUMS does not exist: download it too"
sum=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1 }' "$folder/SHA256SUMS")
[ -n "$sum" ] || fail "SHA256SUMS does not list $name"
echo "$sum  $folder/$name" | sha256sum --check --status ||
  fail "$name is damaged or was changed: its checksum is not the one in SHA256SUMS. Download it again"
[ "$(id -u)" = 0 ] || fail "run this as root: sudo sh install.sh $archive"
[ ! -e /usr/bin/license-server ] || fail "the Debian package is installed: upgrade that, or remove it first"

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar -xzf "$folder/$name" -C "$unpacked" --no-same-owner
files=$unpacked/license-server
"$files/license-server" --version ||
  fail "the executable does not run here: it is for another processor, or the C library is older than glibc 2.28"

is_new=no
[ -e /var/lib/license-server/data ] || is_new=yes
getent passwd license-server >/dev/null ||
  useradd --system --user-group --home-dir /var/lib/license-server --no-create-home \
    --shell /usr/sbin/nologin --comment 'license-server' license-server
for data in /var/lib/license-server /var/backups/license-server; do
  mkdir -p "$(dirname "$data")"
  [ -e "$data" ] || install -d -m 0700 -o license-server -g license-server "$data"
done
[ -e /etc/license-server.toml ] || install -m 644 "$files/license-server.toml" /etc/license-server.toml
# By renaming: a running executable cannot be written to.
install -m 755 "$files/license-server" /usr/local/bin/license-server.new
mv /usr/local/bin/license-server.new /usr/local/bin/license-server
install -D -m 644 "$files/license-server.1.gz" /usr/local/share/man/man1/license-server.1.gz
install -D -m 644 "$files/license-server.bash" /usr/local/share/bash-completion/completions/license-server
install -D -m 644 "$files/_license-server" /usr/local/share/zsh/site-functions/_license-server
install -D -m 644 "$files/license-server.fish" /usr/local/share/fish/vendor_completions.d/license-server.fish

if [ ! -d /run/systemd/system ]; then
  echo "Installed. There is no systemd here: have something run, as the user license-server:"
  echo "  /usr/local/bin/license-server --config /etc/license-server.toml serve"
  exit 0
fi
sed 's,/usr/bin/license-server,/usr/local/bin/license-server,' "$files/license-server.service" \
  >/etc/systemd/system/license-server.service
systemctl daemon-reload
systemctl enable license-server
systemctl restart license-server || fail "the service did not start: see journalctl -u license-server"
echo "license-server runs on this machine."
if [ "$is_new" = yes ]; then
  echo "A link that creates your account is in its log:"
  echo "  sudo journalctl -u license-server -n 20"
fi
