"""The website's side of the domain handshake with a license server: one file, Python 3.8 or newer, no dependencies.

Fill in the five names below. Have your web server pass POST requests for CALLBACK to `application` (WSGI), or call
`answer` from your own framework. Then call the operations, as the user that your web server runs as:

    import site_license
    print(site_license.versions())

Each operation returns the information that the server sent to this domain, or None if refused or after 30 seconds.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import ssl
import stat
import tempfile
import time
import urllib.parse
import urllib.request

SERVER = "https://licenses.example.org"      # the license server
PUBLIC_KEY = "AAAA="                         # its public keys, current and next: `license-server config show`
ORIGIN = "https://www.example.org"           # this site's origin, for the server's calls
CALLBACK = "/.well-known/license-server"     # the path of the server's calls
AUTHORITY = None                             # a PEM file, if the server's certificate is self-signed

STORE = os.path.join(tempfile.gettempdir(), "license-handshake-%d" % os.getuid())
LIFE = 30                                    # seconds that an id is stored

def versions(product=None):
    """Every released version of the product with this short name; by default of the one that this site has a license of."""
    return _handshake("versions", {"product": product})
def license(key):
    """The state of the license."""
    return _handshake("license", {"license_key": key})
def register(key):
    """Binds the license to this domain."""
    return _handshake("register", {"license_key": key})
def deregister(key, domain):
    """Unbinds the license from a domain."""
    return _handshake("deregister", {"license_key": key, "domain": domain})
def transfer(key, new_domain):
    """Starts the transfer of the license to another domain."""
    return _handshake("transfer", {"license_key": key, "new_domain": new_domain})
def cancel_transfer(key):
    """Cancels the transfer."""
    return _handshake("cancel_transfer", {"license_key": key})

def _handshake(operation, details):
    request_id = secrets.token_hex(32)
    request = {"domain": urllib.parse.urlsplit(ORIGIN).hostname, "request_id": request_id}
    if "license_key" in details and operation != "deregister":
        request["license_key"] = details["license_key"]
    _write(request_id, {"awaits": "challenge"})
    try:
        if not _post("/api/site/request", request):
            return None
        challenged = _wait(request_id, "transaction_id")
    finally:
        _remove(request_id)
    if challenged is None:
        return None
    transaction_id = challenged["transaction_id"]
    try:
        if not _post("/api/site/transaction", dict(details, transaction_id=transaction_id, operation=operation)):
            return None
        delivered = _wait(transaction_id, "information")
        return delivered["information"] if delivered and delivered["operation"] == operation else None
    finally:
        _remove(transaction_id)

def _post(path, body):
    context = ssl.create_default_context(cafile=AUTHORITY)
    request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as response:
            return response.status == 202
    except OSError:
        return False

def application(environ, start_response):
    """The callback as a WSGI application."""
    length = re.fullmatch(r"\d{1,8}", environ.get("CONTENT_LENGTH") or "", re.ASCII)
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    fits = environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO") == CALLBACK
    taken = fits and answer(headers, environ["wsgi.input"].read(min(int(length[0]), 16384) if length else 0))
    start_response("200 OK" if taken else "404 Not Found", [("Content-Length", "0")])
    return [b""]

def answer(headers, body):
    """Returns whether the callback is valid and expected: respond with 200 if so, otherwise with 404."""
    if not _signed(headers, body):
        return False
    message = json.loads(body)
    if message["step"] == "challenge":
        if _read(message["request_id"]) != {"awaits": "challenge"}:
            return False
        _write(message["transaction_id"], {"awaits": "delivery"})
        _write(message["request_id"], {"transaction_id": message["transaction_id"]})
        return True
    if message["step"] != "delivery" or _read(message["transaction_id"]) != {"awaits": "delivery"}:
        return False
    _write(message["transaction_id"], {"operation": message["operation"], "information": message["information"]})
    return True

def _signed(headers, body):
    """Whether the server signed exactly this message to this address within 5 minutes (RFC 9421, RFC 9530)."""
    form = r'sig1=(\("@method" "@target-uri" "content-digest"\);created=(\d{1,12});keyid="[0-9a-f]+";alg="ed25519")'
    params = re.fullmatch(form, headers.get("signature-input", ""), re.ASCII)
    signature = re.fullmatch(r"sig1=:([A-Za-z0-9+/]{86}==):", headers.get("signature", ""))
    digest = "sha-256=:%s:" % base64.b64encode(hashlib.sha256(body).digest()).decode()
    if not params or not signature or abs(time.time() - int(params[2])) > 300:
        return False
    if not hmac.compare_digest(digest.encode(), headers.get("content-digest", "").encode()):
        return False
    base = '"@method": POST\n"@target-uri": %s\n"content-digest": %s\n"@signature-params": %s'
    base = base % (ORIGIN + CALLBACK, digest, params[1])
    return any(_verify(base64.b64decode(key), base.encode(), base64.b64decode(signature[1])) for key in PUBLIC_KEY.split())

# Stored for 30 seconds: one file per id, readable by this user only.
def _path(identity):
    os.makedirs(STORE, mode=0o700, exist_ok=True)
    folder = os.lstat(STORE)
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.getuid() or folder.st_mode & 0o077:
        raise RuntimeError(STORE + " is accessible to other users: choose another STORE")
    if not re.fullmatch(r"[0-9a-f]{64}", str(identity)):
        raise ValueError("no id")
    return os.path.join(STORE, identity)

def _write(identity, value):
    path = _path(identity)
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dict(value, until=time.time() + LIFE), file)
    os.replace(path + ".new", path)

def _read(identity):
    try:
        with open(_path(identity)) as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if value.pop("until") > time.time() else None

def _remove(identity):
    for path in (os.path.join(STORE, name) for name in os.listdir(STORE)):
        try:
            if path == _path(identity) or os.path.getmtime(path) < time.time() - LIFE:
                os.remove(path)
        except FileNotFoundError:
            continue  # removed by another process

def _wait(identity, name):
    end = time.time() + LIFE
    while time.time() < end:
        time.sleep(1)
        value = _read(identity)
        if value and name in value:
            return value
    return None

# Ed25519 verification (RFC 8032), which the standard library lacks. Not constant-time, and need not be.
_P = 2 ** 255 - 19
_L = 2 ** 252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P

def _add(a, b):
    k, l = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    m, n = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = l - k, n - m, n + m, l + k
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P

def _times(factor, point):
    total = (0, 1, 1, 0)
    while factor:
        total = _add(total, point) if factor & 1 else total
        point, factor = _add(point, point), factor >> 1
    return total

def _point(data):
    y, odd = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    x = x if (x * x - square) % _P == 0 else x * pow(2, (_P - 1) // 4, _P) % _P
    if y >= _P or (x * x - square) % _P or (x == 0 and odd):
        return None
    x = x if x & 1 == odd else _P - x
    return x, y, 1, x * y % _P

def _verify(public, message, signature):
    a, r, s = _point(public), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if len(public) != 32 or len(signature) != 64 or a is None or r is None or s >= _L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    base = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    left, right = _times(s, base), _add(r, _times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 and (left[1] * right[2] - right[1] * left[2]) % _P == 0
