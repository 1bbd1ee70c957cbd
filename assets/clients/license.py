"""Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.

Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a session
timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
Python 3.9 or newer, nothing to install. The end of the file shows how to use it.
"""
import atexit, base64, contextlib, hashlib, http.client, json, locale, os, pathlib, platform, random, re, ssl
import subprocess, sys, threading, time, urllib.error, urllib.request, uuid

SERVER = "https://licenses.example.org"
API_KEY = "YOUR-API-KEY"
PRODUCT = "Example product"  # part of each device's fingerprint: never change it once customers use the program
VERSION = "1.0.0"  # of your program
CA_FILE = "ca.pem"  # the certificate to trust, beside the program; "" to trust those of the system
PUBLIC_KEYS = {  # the current and the next one, so that a key rotation needs no new release of the program
    "CURRENT-KEY-ID": "CURRENT-PUBLIC-KEY",
    "NEXT-KEY-ID": "NEXT-PUBLIC-KEY",
}


class LicenseError(Exception):
    """The text is for the user. `code` never changes; "unreachable": no signed response, wait for `after` seconds."""
    def __init__(self, text, code="unreachable", after=0, end_reason=None, field=None):
        super().__init__(text)
        self.code, self.after, self.end_reason, self.field = code, after, end_reason, field


class License:
    """`ask(problem)` returns the license key that the user enters, or "" for a trial; `problem` says why the last key
    was refused. `stopped(message)` is called on a background thread if the program has to stop."""
    def __init__(self, ask, stopped):
        self.ask, self.stopped, self.stopping = ask, stopped, threading.Event()
        self.key, self.session, self.lease, self.features = "", {}, None, []
        self.start_key = self.own_start_key()

    def start(self):
        """Starts a session; without the server, uses the lease of the last one. Raises LicenseError."""
        problem, until = "", 0
        while not self.session and not self.lease:
            self.key = self.key or self.load("key") or self.ask(problem).strip()
            until = until or time.monotonic() + 4
            try:
                self.start_session()
            except LicenseError as error:
                if error.code == "license_not_found" or error.field == "license_key":
                    problem, until = str(error), 0  # mistyped: asks again
                    self.key = self.save("key", "")
                elif error.code == "unreachable" and time.monotonic() + error.after < until:
                    time.sleep(max(error.after, random.uniform(0.5, 1)))
                else:
                    self.lease = self.valid_lease() if error.code == "unreachable" else None
                    if not self.lease:
                        raise
                    self.features = self.lease["features"]  # what was sold with the license
        self.thread = threading.Thread(target=self.keep_alive, daemon=True)
        self.thread.start()
        atexit.register(self.end)

    def end(self):
        """Ends the session, which frees the license at once. Called at exit too."""
        self.stopping.set()
        if threading.current_thread() is not self.thread:
            self.thread.join(5)  # it may be starting a session, which must be ended too
        token = self.session.pop("session_token", None)
        with contextlib.suppress(LicenseError):  # without the server, the session times out
            if token:
                self.call("session/end", {"session_token": token})

    def start_session(self):
        device = {"machine_id": platform.node() or "unknown", "hardware_hash": self.fingerprint(), "version": VERSION}
        if not self.key:  # each device gets one trial, and always the same one
            self.key = self.call("trial", device)["license_key"]
        device["license_key"] = self.key
        self.call("activate", device)  # changes nothing if this device has a slot already
        self.session, self.lease = self.call("session/start", device, self.start_key), None
        self.features = self.session["license"]["features"]
        self.save("key", self.key)
        self.save("lease", self.session["lease"] or "")  # null if the shop does not allow work without the server

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
                    interval = self.call("session/heartbeat", heartbeat)["heartbeat_interval"]
                wait, pause = interval, 0.5
            except Exception as error:  # nothing may end this thread
                code = getattr(error, "code", "unreachable")
                if code == "session_not_found" or getattr(error, "end_reason", None) == "timeout":
                    self.session, wait = {}, 0  # the machine slept: starts another session
                elif code != "unreachable":  # ended by an administrator, taken over, suspended, in use elsewhere, ...
                    self.session = {}
                    return self.stopped(str(error))
                elif self.lease and not self.valid_lease():
                    return self.stopped("The license server could not be reached before the offline lease expired.")
                else:  # a session goes on without the network, and while the server is busy
                    wait, pause = max(getattr(error, "after", 0), pause), min(2 * pause, interval / 2)

    def valid_lease(self):
        """The lease of the last start, if it is for this license and device, and the clock is within its term."""
        with contextlib.suppress(ValueError, KeyError):
            parts = self.load("lease").split(".")
            header, lease, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
            header, lease = json.loads(header), json.loads(lease)
            key = re.sub("[^0-9A-Z]", "", self.key.upper()).translate(str.maketrans("OIL", "011"))
            own = (header["typ"], lease["license"], lease["hardware_hash"]) == ("lease+jwt", key, self.fingerprint())
            if own and lease["iat"] - 300 <= time.time() < lease["exp"]:  # nor if the clock is behind
                return lease if verify(header["kid"], ".".join(parts[:2]).encode(), signature) else None

    def call(self, endpoint, body, idempotency_key=None):
        """The server's response. Each call has a connection of its own."""
        sent, nonce = json.dumps(body).encode(), base64.b64encode(os.urandom(32)).decode()
        headers = {"X-API-Key": API_KEY, "Content-Type": "application/json", "Content-Digest": digest(sent)}
        headers.update({"Signature-Nonce": nonce, "Accept-Language": language()})
        headers.update({"Idempotency-Key": idempotency_key} if idempotency_key else {})
        path, program = f"/api/license/{endpoint}", sys.executable if getattr(sys, "frozen", False) else __file__
        ca = pathlib.Path(program).resolve().parent / CA_FILE if CA_FILE else None
        for attempt in (1, 2):  # the network may have lost the first
            try:
                trust = ssl.create_default_context(cafile=ca)
                request = urllib.request.Request(SERVER + path, sent, headers)
                with urllib.request.urlopen(request, context=trust, timeout=10) as response:
                    status, fields, received = response.status, response.headers, response.read()
                break
            except urllib.error.HTTPError as error:
                status, fields, received = error.code, error.headers, error.read()
                break
            except (OSError, http.client.HTTPException) as error:
                if attempt == 2:
                    text = f"The license server cannot be reached: {error or type(error).__name__}"
                    raise LicenseError(text) from None
        if status in (429, 503):
            after = fields["Retry-After"] or ""
            raise LicenseError(f"The license server is busy ({status}).", after=int(after) if after.isdigit() else 0)
        if not is_signed(path, sent, nonce, status, fields, received):
            raise LicenseError("The license server cannot be reached: this response is not signed by it.")
        answer = json.loads(received)
        if status >= 400:
            if answer["code"].startswith(("license_", "version_", "device_")):
                self.save("lease", "")  # nor may the program work without the server
            text = " ".join(filter(None, (answer["detail"], answer.get("download_url"))))  # of a version that may run
            raise LicenseError(text, answer["code"], 0, answer.get("end_reason"), answer.get("field"))
        return answer

    def data_file(self, name):
        """A file in the user's folder for application data; the program's own folder may be read-only."""
        local = {"win32": "AppData/Local", "darwin": "Library/Application Support"}.get(sys.platform, ".local/share")
        base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME")
        product = re.sub(r"[^\w-]+", "-", PRODUCT).strip("-") or "program"
        folder = pathlib.Path(base or pathlib.Path.home() / local, product)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def load(self, name):
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            return self.data_file(name).read_text(encoding="utf-8")
        return ""

    def save(self, name, text):
        with contextlib.suppress(OSError, RuntimeError):  # the program works all the same
            self.data_file(name).write_text(text, encoding="utf-8")
        return text

    def own_start_key(self):
        """The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The
        file stays locked until the program ends: a second copy that runs at the same time uses a key of its own."""
        key = str(uuid.uuid4())
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.start_file = file = open(self.data_file("start"), "a+")
            file.seek(0)
            if sys.platform == "win32":
                import msvcrt
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            key = file.read(64) or file.write(key) and key
            file.flush()
        return key

    def fingerprint(self):
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
            machine = self.load("device") or self.save("device", str(uuid.uuid4()))
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
    def times(factor, point):
        total = (0, 1)
        for bit in bin(factor)[2:]:
            total = add(total, total)
            total = add(total, point) if bit == "1" else total
        return total
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
    license = License(ask=lambda problem: input(f"{problem}\nLicense key (empty for a trial): "),
                      stopped=lambda reason: (reasons.append(reason), done.set()))
    try:
        license.start()
        print("Running." if license.session else "Running without the server.", "Press Enter to end.", flush=True)
        threading.Thread(target=lambda: (os.read(0, 1), done.set()), daemon=True).start()
        done.wait()  # your program works here
    except (LicenseError, EOFError, KeyboardInterrupt) as error:
        reasons.append(error)
    sys.exit(str(reasons[0]) if reasons else 0)
