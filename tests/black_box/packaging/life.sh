# Usage: life.sh FOLDER
# The life of the package on a machine with systemd: install, use, upgrade, remove, install again, purge. FOLDER has
# the packages first.deb and second.deb. Runs in a machine of its own (machine.sh).
set -euo pipefail
# Programs are found anew each time: they move.
set +h
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND"; journalctl -u license-server --no-pager | tail -n 30' ERR

folder=$1
data=/var/lib/license-server/data
export DEBIAN_FRONTEND=noninteractive

package() { dpkg --no-triggers --force-unsafe-io "$@" </dev/null; }
say() { echo "== $*"; }
# Waits until the server answers at this address.
answers() {
  for _ in {1..400}; do
    if curl -sf --cacert "$data/tls/ca.pem" "$1/health" | grep -q '"ok"'; then return 0; fi
    sleep 0.05
  done
  echo "no answer from $1"
  return 1
}
call() {
  curl -s --cacert "$data/tls/ca.pem" -H "X-API-Key: $api_key" -H 'Content-Type: application/json' \
    "https://localhost:$port/api/license/$1" -d "$2"
}
is_gone() { [[ ! -e $1 && ! -L $1 ]]; }
# Succeeds if the command fails.
refused() { if "$@"; then return 1; fi; }

say "install"
package -i "$folder/first.deb" | tee "$folder/installed"
grep -q 'journalctl -u license-server' "$folder/installed"
port=8443
answers https://localhost:$port
systemctl is-active license-server
systemctl is-enabled license-server
[[ $(stat -c '%U %a' /var/lib/license-server) == 'license-server 700' ]]
[[ $(stat -c '%U %a' /var/backups/license-server) == 'license-server 700' ]]
journalctl -u license-server --no-pager | grep -q 'https://.*setup'
journalctl -u license-server --no-pager | grep -q '  sudo license-server config show '
journalctl -u license-server --no-pager | grep -q "sudo curl --cacert $data/tls/ca.pem"
gzip -dc /usr/share/man/man1/license-server.1.gz | grep -q '^\.TH LICENSE'
bash -n /usr/share/bash-completion/completions/license-server
ls -s /usr/share/zsh/vendor-completions/_license-server /usr/share/fish/vendor_completions.d/license-server.fish
systemd-analyze verify license-server.service

say "commands in any folder, as root, for the user of the service"
cd /
license-server customer add Ada
key=$(license-server --json license issue --customer Ada | grep -o '[0-9A-Z-]\{29\}')
api_key=$(license-server config show | awk '$1 == "api_key" {print $2}')
[[ $(find "$data" ! -user license-server) == '' ]]
refused license-server restore "$folder/first.deb"
license-server check
license-server health
[[ $(ls /var/backups/license-server/*.tar | wc -l) == 1 ]]

say "a session, and a port below 1024"
device='{"license_key":"'$key'","machine_id":"desk","hardware_hash":"f3a9","version":"1.0.0"}'
call activate "$device" >/dev/null
token=$(call session/start "$device" | grep -o '"session_token":"[^"]*' | cut -d '"' -f 4)
[[ -n $token ]]
sed -i 's/^port = 8443/port = 443/' /etc/license-server.toml
systemctl restart license-server
port=443
answers https://localhost

say "upgrade"
before=$(systemctl show -p MainPID license-server)
package -i "$folder/second.deb"
answers https://localhost
[[ $(dpkg-query -W -f '${Version}' license-server) == *+second ]]
[[ $(systemctl show -p MainPID license-server) != "$before" ]]
grep -q '^port = 443' /etc/license-server.toml
call session/heartbeat '{"session_token":"'$token'","license_key":"'$key'"}' | grep -q heartbeat_interval

say "wrong settings end the service once; it comes back after kill -9"
echo 'prot = 1' >>/etc/license-server.toml
systemctl restart license-server || true
for _ in {1..100}; do [[ $(systemctl is-failed license-server) == failed ]] && break; sleep 0.05; done
[[ $(systemctl show -p NRestarts --value license-server) == 0 ]]
sed -i '/^prot/d' /etc/license-server.toml
systemctl start license-server
answers https://localhost
systemctl kill -s KILL license-server
for _ in {1..200}; do [[ $(systemctl show -p NRestarts --value license-server) == 1 ]] && break; sleep 0.05; done
answers https://localhost

say "remove keeps settings and data; a new installation goes on with them"
package -r license-server
is_gone /usr/bin/license-server
refused systemctl is-active license-server
refused curl -s https://localhost
[[ -f $data/license-server.sqlite3 && -f /etc/license-server.toml ]]
package -i "$folder/second.deb"
answers https://localhost
systemctl is-enabled license-server
license-server license list | grep -q "$key"

say "a service that was disabled stays disabled"
systemctl disable --now license-server
package -i "$folder/second.deb"
refused systemctl is-enabled license-server
refused systemctl is-active license-server

say "purge keeps the data and asks nothing"
package --purge license-server | tee "$folder/purged"
grep -q 'Kept, with your data: /var/lib/license-server' "$folder/purged"
is_gone /etc/license-server.toml
[[ -f $data/license-server.sqlite3 ]]
package -i "$folder/first.deb"
answers https://localhost:8443
license-server license list | grep -q "$key"

say "the portable executable does not install beside the package, nor if its archive was changed"
archive=license-server-linux.tar.gz
cp "$folder/install.sh" "$folder/$archive" /tmp
(cd /tmp && sha256sum "$archive" >SHA256SUMS)
refused sh /tmp/install.sh "/tmp/$archive" 2>&1 | grep 'the Debian package is installed'
package --purge license-server
echo changed >>"/tmp/$archive"
refused sh /tmp/install.sh "/tmp/$archive" 2>&1 | grep 'is damaged or was changed'
is_gone /usr/local/bin/license-server

say "it goes on with the data of the package, as the same service"
cp "$folder/$archive" /tmp
sh /tmp/install.sh "/tmp/$archive"
answers https://localhost:8443
license-server license list | grep -q "$key"
sh /tmp/install.sh "/tmp/$archive"
answers https://localhost:8443
systemctl disable --now license-server
rm /etc/systemd/system/license-server.service /usr/local/bin/license-server

say "purge deletes the data if it is told so"
package -i "$folder/first.deb"
LICENSE_SERVER_DELETE_DATA=yes package --purge license-server
is_gone /var/lib/license-server
is_gone /var/backups/license-server
refused getent passwd license-server
say "done"
