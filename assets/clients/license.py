"""Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.

Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a session
timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
Python 3.9 or newer, nothing to install. The end of the file shows how to use it.
"""
import atexit, base64, contextlib, functools, hashlib, http.client, json, locale, os, pathlib, platform, random, re
import ssl, subprocess, sys, threading, time, urllib.error, urllib.request, uuid

SERVER = "https://licenses.example.org"
API_KEY = "YOUR-API-KEY"
PRODUCT = "Example product"  # part of each device's fingerprint: never change it once customers use the program
VERSION = "1.0.0"  # of your program
CA_FILE = "ca.pem"  # the certificate to trust, beside the program; "" to trust those of the system
PUBLIC_KEYS = {  # the current and the next one, so that a key rotation needs no new release of the program
    "CURRENT-KEY-ID": "CURRENT-PUBLIC-KEY",
    "NEXT-KEY-ID": "NEXT-PUBLIC-KEY",
}
TEXTS = {"unreachable": ("The license server cannot be reached.", "Der Lizenzserver ist nicht erreichbar."),
         "canceled": ("No license key was entered.", "Es wurde kein Lizenzschlüssel eingegeben.")}


class LicenseError(Exception):
    """The text is for the user. `code` never changes; "unreachable": no signed response, `__cause__` says why."""
    def __init__(self, code="unreachable", text="", after=0, end_reason=None, field=None):
        super().__init__(text or TEXTS[code][language().startswith("de")])
        self.code, self.after, self.end_reason, self.field = code, after, end_reason, field


class License:
    """`ask(problem)` returns the user's license key, "" for a trial, None if canceled; `problem` says why the last
    key was refused. `stopped(message)` is called on a background thread if the program has to stop. `features` are what
    was sold with the license; `session` is the response of session/start, empty without the server."""
    def __init__(self, ask, stopped):
        self.ask, self.stopped, self.stopping = ask, stopped, threading.Event()
        self.key, self.session, self.lease, self.features = "", {}, None, []
        self.thread = threading.Thread(target=self.keep_alive, daemon=True)

    def start(self):
        """Starts a session; without the server, uses the lease of the last one. Raises LicenseError."""
        if CA_FILE and not ca_file().is_file():
            raise LicenseError("ca_file_missing", f"The license server's certificate is missing: {ca_file()}")
        self.key, problem = load("key"), ""
        while not self.session and not self.lease:
            entered = self.key or self.ask(problem)
            if entered is None:
                raise LicenseError("canceled")
            self.key = save("key", entered.strip())
            try:
                self.start_session(spare=3)
            except LicenseError as error:
                if error.code == "license_not_found" or error.field == "license_key":
                    self.key, problem = self.forget_key(), str(error)  # mistyped: asks again
                    continue
                self.lease = self.valid_lease() if error.code == "unreachable" else None
                if not self.lease:
                    raise
                self.features = self.lease["features"]
        atexit.register(self.end)
        self.thread.start()

    def end(self):
        """Ends the session, which frees the license at once. Called at exit too."""
        self.stopping.set()
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join(1)  # it may be starting a session, which must be ended too
        token = self.session.pop("session_token", None)
        with contextlib.suppress(LicenseError):  # without the server, the session times out
            if token:
                call("session/end", {"session_token": token}, time.monotonic() + 2.5, 2)

    @staticmethod
    def forget_key():
        """The next start asks for a key again: for a user who has bought another license."""
        return save("key", "")

    def start_session(self, spare=10):
        until = time.monotonic() + 10  # for all of its calls
        device = {"machine_id": platform.node() or "unknown", "hardware_hash": fingerprint(), "version": VERSION}
        if not self.key:  # each device gets one trial, and always the same one
            self.key = save("key", call("trial", device, until, spare)["license_key"])
        device["license_key"] = self.key
        call("activate", device, until, spare)  # changes nothing if this device has a slot already
        self.session, self.lease = call("session/start", device, until, spare), None
        self.features = self.session["license"]["features"]
        save("lease", self.session["lease"] or "")  # null if the shop does not allow work without the server

    def keep_alive(self):
        interval = self.session.get("heartbeat_interval", 30)
        wait, pause = interval if self.session else 1, 0.5
        while not self.stopping.wait(wait * random.uniform(0.8, 1)):  # jitter: programs should not call all at once
            try:
                if not self.session:
                    self.start_session()
                    interval = self.session["heartbeat_interval"]
                else:
                    heartbeat = {"license_key": self.key, "session_token": self.session["session_token"]}
                    interval = call("session/heartbeat", heartbeat, time.monotonic() + 5, 5)["heartbeat_interval"]
                wait, pause = interval, 0.5
            except Exception as problem:  # nothing may end this thread
                error = problem if isinstance(problem, LicenseError) else LicenseError()
                if error.code == "session_not_found" or error.end_reason == "timeout":
                    self.session, wait = {}, 0  # the machine slept: starts another session
                elif error.code != "unreachable" or self.lease and not self.valid_lease():
                    self.session, self.lease = {}, None  # ended by an administrator, taken over, in use elsewhere, ...
                    return self.stopping.is_set() or self.stopped(str(error))
                else:  # a session goes on without the network, and while the server is busy
                    wait, pause = min(max(error.after, pause), interval), min(1.5 * pause, interval / 2)

    def valid_lease(self):
        """The lease of the last start, if it is for this license and device, and the clock is within its term."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            parts = load("lease").split(".")
            header, lease, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
            header, lease = json.loads(header), json.loads(lease)
            key = re.sub("[^0-9A-Z]", "", self.key.upper()).translate(str.maketrans("OIL", "011"))
            own = (header["typ"], lease["license"], lease["hardware_hash"]) == ("lease+jwt", key, fingerprint())
            if own and lease["iat"] - 300 <= time.time() < lease["exp"]:  # nor if the clock is behind
                return lease if verify(header["kid"], ".".join(parts[:2]).encode(), signature) else None


def call(endpoint, body, until, spare):
    """The server's response, until a moment. Calls again after a lost connection if `spare` seconds remain then."""
    while True:
        try:
            return attempt(endpoint, body, max(until - time.monotonic(), 2))
        except LicenseError as error:
            pause = max(error.after, random.uniform(0.5, 1))
            if error.code != "unreachable" or time.monotonic() + pause + spare > until:
                raise
        time.sleep(pause)


def attempt(endpoint, body, timeout):
    path, sent, nonce = f"/api/license/{endpoint}", json.dumps(body).encode(), base64.b64encode(os.urandom(32)).decode()
    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json", "Content-Digest": digest(sent),
               "Signature-Nonce": nonce, "Accept-Language": language()}
    if endpoint == "session/start":
        headers["Idempotency-Key"] = start_key()[0]
    try:  # each call has a connection of its own
        trust = ssl.create_default_context(cafile=ca_file() if CA_FILE else None)
        request = urllib.request.Request(SERVER + path, sent, headers)
        try:
            response = urllib.request.urlopen(request, context=trust, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            status, fields, received = response.status, response.headers, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LicenseError() from error
    if status in (429, 503):
        after = re.fullmatch("[0-9]{1,9}", fields["Retry-After"] or "")
        raise LicenseError(after=int(after[0]) if after else 0) from OSError(f"the server is busy ({status})")
    if not is_signed(path, sent, nonce, status, fields, received):
        raise LicenseError() from OSError("the response is not signed by the license server")
    answer = json.loads(received)
    if status < 400:
        return answer
    if answer["code"].startswith(("license_", "version_", "device_")):
        save("lease", "")  # nor may the program work without the server
    text = " ".join(filter(None, (answer["detail"], answer.get("download_url"))))  # of a version that may run
    raise LicenseError(answer["code"], text, 0, answer.get("end_reason"), answer.get("field"))


def ca_file():
    return pathlib.Path(sys.executable if getattr(sys, "frozen", False) else __file__).resolve().with_name(CA_FILE)


def data_file(name):
    """A file in the user's folder for application data; the program's own folder may be read-only."""
    local = {"win32": "AppData/Local", "darwin": "Library/Application Support"}.get(sys.platform, ".local/share")
    base = os.environ.get({"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_DATA_HOME"))
    product = re.sub(r"[^\w-]+", "-", PRODUCT).strip("-") or "program"
    folder = pathlib.Path(base or pathlib.Path.home() / local, product)
    folder.mkdir(0o700, parents=True, exist_ok=True)  # the key is none of other users' business
    return folder / name


def load(name):
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return data_file(name).read_text(encoding="utf-8")
    return ""


def save(name, text):
    with contextlib.suppress(OSError, RuntimeError):  # the program works all the same
        data_file(name).write_text(text, encoding="utf-8")
    return text


@functools.lru_cache(None)
def start_key():
    """The Idempotency-Key of starts, and its file. It is stored, so that after a crash the next run gets its session
    back. The file stays locked until the program ends: a second copy that runs at the same time uses another key."""
    key, file = str(uuid.uuid4()), None
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        file = open(data_file("start"), "a+")
        file.seek(0)
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        key = file.read(64) or file.write(key) and key
        file.flush()
    return key, file


@functools.lru_cache(None)
def fingerprint():
    """The system's id of this device, else a random one that is saved; hashed, to be useless to other products."""
    try:
        if sys.platform == "win32":
            import winreg
            path, access = r"SOFTWARE\Microsoft\Cryptography", winreg.KEY_READ | winreg.KEY_WOW64_64KEY
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, access) as key:
                machine = winreg.QueryValueEx(key, "MachineGuid")[0]
        elif sys.platform == "darwin":
            output = subprocess.check_output(["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"], text=True)
            machine = re.search('"IOPlatformUUID" = "(.+)"', output)[1]
        else:
            machine = re.fullmatch("([0-9a-f]{32})\n?", pathlib.Path("/etc/machine-id").read_text())[1]
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        machine = load("device") or save("device", str(uuid.uuid4()))
    return hashlib.sha256(f"{PRODUCT}\n{machine}".encode()).hexdigest()


def language():
    if sys.platform == "win32":
        import ctypes
        return locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "*")
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "*")


def digest(body):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def is_signed(path, sent, nonce, status, headers, received):
    """Whether the server has signed exactly this response to exactly this request."""
    covered = re.escape('("@status" "content-digest" "@method";req "@path";req "content-digest";req)')
    form = rf'sig1=({covered};created=\d+;keyid="(\w+)";alg="ed25519";nonce="{re.escape(nonce)}")'
    params = re.fullmatch(form, headers.get("Signature-Input", ""))
    signature = re.fullmatch(r"sig1=:([A-Za-z0-9+/]{86}==):", headers.get("Signature", ""))
    if not params or not signature:
        return False
    base = f'"@status": {status}\n"content-digest": {digest(received)}\n"@method";req: POST\n"@path";req: {path}\n'
    base += f'"content-digest";req: {digest(sent)}\n"@signature-params": {params[1]}'
    return verify(params[2], base.encode(), base64.b64decode(signature[1]))


def verify(key_id, message, signature):
    """Ed25519 (RFC 8032), which the standard library lacks. Not in constant time: nothing here is secret."""
    p, order, public = 2 ** 255 - 19, 2 ** 252 + 27742317777372353535851937790883648493, PUBLIC_KEYS.get(key_id)
    d, s = -121665 * pow(121666, -1, p), int.from_bytes(signature[32:], "little")
    def add(a, b):
        x, y, t = a[0] * b[1] + a[1] * b[0], a[1] * b[1] + a[0] * b[0], d * a[0] * a[1] * b[0] * b[1]
        return x * pow(1 + t, -1, p) % p, y * pow(1 - t, -1, p) % p
    def times(n, point):
        return (0, 1) if n == 0 else add(times(n - 1, point), point) if n & 1 else times(n // 2, add(point, point))
    def point(y, odd):
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if (x * x - square) % p == 0 else x * pow(2, (p - 1) // 4, p) % p
        return x if x & 1 == odd else p - x, y
    if not public or s >= order:
        return False
    public = base64.b64decode(public)
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % order
    x, y = point(int.from_bytes(public, "little") & 2 ** 255 - 1, public[31] >> 7)
    x, y = add(times(s, point(4 * pow(5, -1, p) % p, 0)), times(h, (p - x, y)))
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


if __name__ == "__main__":
    done, reasons = threading.Event(), []
    license = License(ask=lambda problem: print(f"{problem}\nLicense key (empty for a trial): ", end="", flush=True)
                      or sys.stdin.readline() or None,  # None at the end of the input: canceled
                      stopped=lambda reason: (reasons.append(reason), done.set()))
    try:
        license.start()
        print("Running." if license.session else "Running without the server.", "Press Enter to end.", flush=True)
        threading.Thread(target=lambda: (os.read(0, 1), done.set()), daemon=True).start()
        done.wait()  # your program works here
    except (LicenseError, KeyboardInterrupt) as error:
        reasons.append(error)
    sys.exit(str(reasons[0]) if reasons else 0)
