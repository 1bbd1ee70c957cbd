#!/usr/bin/env bash
# Runs a license server and a customer's website on one machine: the website registers its domain, lists the released
# versions and shows its license. Everything is in a temporary folder, which is removed at the end.
# Needs openssl and python3. LICENSE_SERVER is the path of the executable, PORT and SITE_PORT are two free ports.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
server=${LICENSE_SERVER:-$root/target/release/license-server}
port=${PORT:-8443} site_port=${SITE_PORT:-8444}
folder=$(mktemp -d)
cd "$folder"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

# A certificate for the website. Names below .localhost resolve to this machine.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj /CN=shop.localhost \
  -addext subjectAltName=DNS:shop.localhost -addext basicConstraints=critical,CA:FALSE \
  -keyout site.key -out site.pem 2>/dev/null

# Allow the server to call this machine and to trust that certificate, which it does not by default.
export LICENSE_SERVER_HANDSHAKE__ALLOW_NETWORKS='["127.0.0.0/8", "::1/128"]'
export LICENSE_SERVER_HANDSHAKE__PORT=$site_port LICENSE_SERVER_HANDSHAKE__EXTRA_ROOT=site.pem
export LICENSE_SERVER_SERVER__PORT=$port
"$server" serve >server.log 2>&1 &
until grep -q 'listens on' server.log; do
  kill -0 $! 2>/dev/null || { cat server.log >&2; exit 1; }
  sleep 0.1
done
"$server" customer add "Ada Lovelace"
key=$("$server" license issue --customer "Ada Lovelace" | grep -o '[0-9A-Z-]\{29\}')
public_keys=$("$server" config show | awk '$1 ~ /^(next_)?signing_public_key$/ {printf "%s%s", space, $2; space = " "}')

# The website: the file from the panel, run by Python's own web server.
sed -e "s|https://licenses.example.org|https://localhost:$port|; s|AAAA=|$public_keys|" \
  -e "s|https://www.example.org|https://shop.localhost:$site_port|; s|AUTHORITY = None|AUTHORITY = 'data/tls/ca.pem'|" \
  "$root/assets/clients/site.py" >site_license.py
cat >serve.py <<PY
import ssl, site_license
from wsgiref.simple_server import make_server
server, context = make_server("127.0.0.1", $site_port, site_license.application), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("site.pem", "site.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
PY
python3 serve.py >site.log 2>&1 &
until grep -q ready site.log; do
  kill -0 $! 2>/dev/null || { cat site.log >&2; exit 1; }
  sleep 0.1
done

call() { printf '%-9s ' "$1"; python3 -c "import site_license as site; print(site.$2)"; }
call register "register('$key')"
call versions "versions()"
call license "license('$key')"
echo "Calls that the website received at its domain:"
grep -c 'POST /.well-known/license-server' site.log
