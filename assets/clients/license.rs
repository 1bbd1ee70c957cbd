//! Runs a program under a license: takes a slot for this device, keeps a session alive while the
//! program works, ends it.
//!
//! Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421,
//! RFC 7515). If a session timed out while the machine slept, another one is started; while the
//! server cannot be reached, work goes on. Rust 1.89 or newer; `main` shows how to use it. Crates:
//!   cargo add ureq --no-default-features --features rustls
//!   cargo add ed25519-dalek base64 serde_json sha2
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, io, path::PathBuf, process::Command, thread};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const SERVER: &str = "https://licenses.example.org";
const API_KEY: &str = "YOUR-API-KEY";
const PRODUCT: &str = "Example product"; // part of each fingerprint: never change it once in use
const VERSION: &str = "1.0.0"; // of your program
const CA_FILE: &str = "ca.pem"; // to trust, beside the program; "" to trust those of ureq
const PUBLIC_KEYS: [(&str, &str); 2] = [
    ("CURRENT-KEY-ID", "CURRENT-PUBLIC-KEY"),
    ("NEXT-KEY-ID", "NEXT-PUBLIC-KEY"), // so that a key rotation needs no new release
];
static DEVICE: LazyLock<String> = LazyLock::new(fingerprint);
static START_KEY: LazyLock<(String, Option<fs::File>)> = LazyLock::new(own_start_key);

/// The text is for the user. `code` never changes; "unreachable": no signed response.
#[derive(Debug)]
pub struct LicenseError {
    pub text: String,
    pub code: String,
    after: f64,    // seconds to wait, if the server named them
    answer: Value, // with what belongs to the code
}

impl LicenseError {
    fn unreachable(text: String, after: f64) -> Self {
        Self { text, code: "unreachable".into(), after, answer: Value::Null }
    }
}

/// Ends when it is dropped, which frees the license at once.
pub struct License {
    pub features: Vec<String>, // what was sold with the license
    pub offline: bool,         // whether it starts on a lease, since the server cannot be reached
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl License {
    /// Starts a session; without the server, uses the lease of the last one. `ask` gets the license
    /// key from the user, "" for a trial; its argument says why the last key was refused. `stopped`
    /// is called on a background thread, with a message, if the program has to stop.
    pub fn start(
        ask: impl Fn(&str) -> String,
        stopped: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, LicenseError> {
        let mut session = Session { interval: 30.0, ..Session::default() };
        session.start_or_use_lease(ask)?;
        let (features, offline) = (session.features.clone(), session.lease.is_some());
        let ((stop, stopping), (ending, ended)) = (channel(), channel());
        thread::spawn(move || {
            let message = session.keep_alive(&stopping);
            drop(ending);
            message.map(stopped)
        });
        Ok(Self { features, offline, stop: Some(stop), ended })
    }
}

impl Drop for License {
    fn drop(&mut self) {
        self.stop = None;
        self.ended.recv_timeout(Duration::from_secs(5)).ok();
    }
}

/// What the background thread owns.
#[derive(Default)]
struct Session {
    key: String,
    token: Option<String>,
    lease: Option<Value>,
    interval: f64, // seconds between heartbeats
    features: Vec<String>,
}

impl Session {
    fn start_or_use_lease(&mut self, ask: impl Fn(&str) -> String) -> Result<(), LicenseError> {
        let mut problem = String::new();
        loop {
            self.key = Some(load("key")).filter(|key| !key.is_empty()).unwrap_or_else(|| ask(&problem));
            let Err(error) = self.start(4) else { return Ok(()) };
            if error.code == "license_not_found" || error.answer["field"] == "license_key" {
                problem = error.text; // mistyped: asks again
                save("key", "");
                continue;
            }
            self.lease = self.valid_lease().filter(|_| error.code == "unreachable");
            let lease = self.lease.as_ref().ok_or(error)?;
            self.features = words(&lease["features"]);
            return Ok(());
        }
    }

    fn start(&mut self, patience: u64) -> Result<(), LicenseError> {
        let name = env::var("COMPUTERNAME").unwrap_or_else(|_| output("uname", &["-n"]));
        let name = if name.trim().is_empty() { "unknown" } else { name.trim() };
        let mut device = json!({ "machine_id": name, "hardware_hash": *DEVICE, "version": VERSION });
        if self.key.trim().is_empty() {
            self.key = text(&call("trial", &device, patience, 10)?["license_key"]); // always the same for a device
        }
        device["license_key"] = self.key.trim().into();
        call("activate", &device, patience, 10)?; // changes nothing if this device has a slot already
        let answer = call("session/start", &device, patience, 10)?;
        self.token = Some(text(&answer["session_token"]));
        self.lease = None;
        self.interval = answer["heartbeat_interval"].as_f64().unwrap_or(30.0);
        self.features = words(&answer["license"]["features"]);
        save("key", self.key.trim());
        save("lease", &text(&answer["lease"])); // null if the shop does not allow offline work
        Ok(())
    }

    fn heartbeat(&mut self, token: &str) -> Result<(), LicenseError> {
        let heartbeat = json!({ "license_key": self.key.trim(), "session_token": token });
        let answer = call("session/heartbeat", &heartbeat, 0, 10)?;
        self.interval = answer["heartbeat_interval"].as_f64().unwrap_or(30.0);
        Ok(())
    }

    /// Returns why the program has to stop, or `None` once the `License` is dropped.
    fn keep_alive(&mut self, stopping: &Receiver<()>) -> Option<String> {
        let jittered = |seconds| Duration::from_secs_f64(seconds * between(0.8, 1.0)); // not all at once
        let (mut wait, mut pause) = (if self.token.is_some() { self.interval } else { 1.0 }, 0.5);
        while stopping.recv_timeout(jittered(wait)) == Err(RecvTimeoutError::Timeout) {
            let result = match self.token.clone() {
                Some(token) => self.heartbeat(&token),
                None => self.start(0),
            };
            let Err(error) = result else {
                (wait, pause) = (self.interval, 0.5);
                continue;
            };
            if error.code == "session_not_found" || error.answer["end_reason"] == "timeout" {
                (self.token, wait) = (None, 0.0); // the machine slept: starts another session
            } else if error.code != "unreachable" {
                return Some(error.text); // ended, taken over, suspended, in use on another device, ...
            } else if self.lease.is_some() && self.valid_lease().is_none() {
                return Some(format!("The offline lease has expired. {}", error.text));
            } else {
                wait = error.after.max(pause); // a session goes on without the network
                pause = (1.5 * pause).min(self.interval / 2.0);
            }
        }
        if let Some(token) = self.token.take() {
            call("session/end", &json!({ "session_token": token }), 1, 2).ok(); // else it times out
        }
        None
    }

    /// The lease of the last start, if it is for this license and device and its term includes now.
    fn valid_lease(&self) -> Option<Value> {
        let token = load("lease");
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, lease) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        let lease: Value = serde_json::from_slice(&decode(lease)?).ok()?;
        let key = self.key.to_uppercase().replace('O', "0").replace(['I', 'L'], "1");
        let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        let now = SystemTime::UNIX_EPOCH.elapsed().ok()?.as_secs(); // not valid if the clock is behind
        let in_term = (lease["iat"].as_u64()?.saturating_sub(300)..lease["exp"].as_u64()?).contains(&now);
        let own = lease["license"] == key && lease["hardware_hash"] == *DEVICE;
        verify(header["kid"].as_str()?, signed, &decode(signature)?)?;
        (header["typ"] == "lease+jwt" && own && in_term).then_some(lease)
    }
}

/// The server's response. For `patience` seconds after a lost connection, calls again.
fn call(endpoint: &str, body: &Value, patience: u64, timeout: u64) -> Result<Value, LicenseError> {
    let mut until = None;
    loop {
        let error = match attempt(endpoint, body, Duration::from_secs(timeout)) {
            Err(error) if error.code == "unreachable" => error,
            result => return result,
        };
        let wait = Duration::from_secs_f64(error.after.max(between(0.5, 1.0)));
        let until = *until.get_or_insert(Instant::now() + Duration::from_secs(patience));
        if Instant::now() + wait > until {
            return Err(error);
        }
        thread::sleep(wait);
    }
}

fn attempt(endpoint: &str, body: &Value, timeout: Duration) -> Result<Value, LicenseError> {
    let (path, sent, nonce) = (format!("/api/license/{endpoint}"), body.to_string(), random_id());
    let send = || -> Result<_, Box<dyn std::error::Error>> {
        let mut request = agent(timeout)?.post(format!("{SERVER}{path}"));
        for (name, value) in [
            ("X-API-Key", API_KEY),
            ("Content-Type", "application/json"),
            ("Content-Digest", &digest(sent.as_bytes())),
            ("Signature-Nonce", &nonce),
            ("Accept-Language", &language()),
        ] {
            request = request.header(name, value);
        }
        if endpoint == "session/start" {
            request = request.header("Idempotency-Key", &START_KEY.0);
        }
        let mut response = request.send(&sent)?;
        let received = response.body_mut().read_to_vec()?;
        Ok((response, received))
    };
    let unreachable = |error| format!("The license server cannot be reached: {error}");
    let (response, received) = send().map_err(|e| LicenseError::unreachable(unreachable(e), 0.0))?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    if status == 429 || status == 503 {
        let after = header("Retry-After").and_then(|after| after.parse().ok()).unwrap_or(0.0);
        let text = format!("The license server is busy ({status}).");
        return Err(LicenseError::unreachable(text, after));
    }
    let signed = format!(
        "\"@status\": {status}\n\"content-digest\": {}\n\"@method\";req: POST\n\"@path\";req: {path}\n\
         \"content-digest\";req: {}\n\"@signature-params\": ",
        digest(&received),
        digest(sent.as_bytes())
    );
    let (input, signature) = (header("Signature-Input"), header("Signature"));
    if is_signed(signed, &nonce, input.unwrap_or_default(), signature.unwrap_or_default()).is_none() {
        let text = unreachable("this response is not signed by it.".into());
        return Err(LicenseError::unreachable(text, 0.0));
    }
    let answer: Value = serde_json::from_slice(&received).unwrap_or_default();
    if status < 400 {
        return Ok(answer);
    }
    let code = text(&answer["code"]);
    if ["license_", "version_", "device_"].iter().any(|kind| code.starts_with(kind)) {
        save("lease", ""); // nor may the program work without the server
    }
    let told = format!("{} {}", text(&answer["detail"]), text(&answer["download_url"]));
    Err(LicenseError { text: told.trim_end().to_owned(), code, after: 0.0, answer })
}

/// For one call: each has a connection of its own.
fn agent(timeout: Duration) -> Result<ureq::Agent, Box<dyn std::error::Error>> {
    let mut tls = TlsConfig::builder();
    if !CA_FILE.is_empty() {
        let program = env::current_exe()?;
        let file = program.canonicalize().unwrap_or(program).with_file_name(CA_FILE);
        tls = tls.root_certs(RootCerts::from(vec![Certificate::from_pem(&fs::read(file)?)?]));
    }
    let config = ureq::Agent::config_builder().tls_config(tls.build()).max_redirects(0);
    Ok(config.http_status_as_error(false).timeout_global(Some(timeout)).build().new_agent())
}

/// Whether the server has signed exactly this response to exactly this request (RFC 9421).
fn is_signed(signed: String, nonce: &str, input: &str, signature: &str) -> Option<()> {
    let parameters = input.strip_prefix("sig1=")?;
    let covered = r#"("@status" "content-digest" "@method";req "@path";req "content-digest";req)"#;
    let (_, rest) = parameters.strip_prefix(covered)?.split_once(";keyid=\"")?;
    let key_id = rest.strip_suffix(&format!("\";alg=\"ed25519\";nonce=\"{nonce}\""))?;
    let signature = signature.strip_prefix("sig1=:")?.strip_suffix(':')?;
    verify(key_id, &(signed + parameters), &BASE64_STANDARD.decode(signature).ok()?)
}

fn verify(key_id: &str, message: &str, signature: &[u8]) -> Option<()> {
    let (_, key) = PUBLIC_KEYS.iter().find(|(id, _)| *id == key_id)?;
    let key = BASE64_STANDARD.decode(key).ok()?;
    let key = VerifyingKey::from_bytes(key.as_slice().try_into().ok()?).ok()?;
    key.verify_strict(message.as_bytes(), &Signature::from_slice(signature).ok()?).ok()
}

fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
}

/// The string, or "" where there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish() // the system's randomness is its seed
}

fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

fn between(low: f64, high: f64) -> f64 {
    low + (high - low) * (random() as f64 / u64::MAX as f64)
}

/// A file in the user's folder for application data; the program's own folder may be read-only.
fn data_file(name: &str) -> io::Result<PathBuf> {
    let (variable, local) = match env::consts::OS {
        "windows" => ("LOCALAPPDATA", "AppData/Local"),
        "macos" => ("", "Library/Application Support"),
        _ => ("XDG_DATA_HOME", ".local/share"),
    };
    let home = || env::home_dir().unwrap_or_default().join(local);
    let base = env::var_os(variable).filter(|base| !base.is_empty()).map_or_else(home, PathBuf::from);
    let folder = base.join(PRODUCT.replace(|c: char| !c.is_alphanumeric() && c != '_', "-"));
    fs::create_dir_all(&folder)?;
    #[cfg(unix)] // other users need not know the license key
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(folder.join(name))
}

fn load(name: &str) -> String {
    data_file(name).and_then(fs::read_to_string).unwrap_or_default()
}

fn save(name: &str, text: &str) {
    data_file(name).and_then(|file| fs::write(file, text)).ok(); // the program works all the same
}

/// The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session
/// back. The file stays locked until the program ends: a second copy uses a key of its own.
fn own_start_key() -> (String, Option<fs::File>) {
    let mut options = fs::File::options();
    let file = data_file("start").and_then(|file| options.read(true).append(true).create(true).open(file));
    let key = random_id();
    match file {
        Ok(file) if file.try_lock().is_ok() => {
            let stored = io::read_to_string(&file).unwrap_or_default();
            if stored.is_empty() {
                io::Write::write_all(&mut &file, key.as_bytes()).ok();
            }
            (if stored.is_empty() { key } else { stored }, Some(file))
        }
        _ => (key, None),
    }
}

/// The system's id of this device, else a random one that is saved; hashed with the product's name,
/// so that no other product can use it.
fn fingerprint() -> String {
    let mut id = match env::consts::OS {
        "windows" => registry(r"HKLM\SOFTWARE\Microsoft\Cryptography", "MachineGuid"),
        "macos" => {
            let shown = output("/usr/sbin/ioreg", &["-rd1", "-c", "IOPlatformExpertDevice"]);
            let words: Vec<&str> = shown.split('"').skip_while(|word| *word != "IOPlatformUUID").collect();
            words.get(2).copied().unwrap_or_default().to_owned()
        }
        _ => fs::read_to_string("/etc/machine-id").unwrap_or_default().trim_end().to_owned(),
    };
    if id.len() < 32 {
        id = Some(load("device")).filter(|saved| !saved.is_empty()).unwrap_or_else(random_id);
        save("device", &id);
    }
    let hash = Sha256::digest(format!("{PRODUCT}\n{id}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn language() -> String {
    let names = ["LC_ALL", "LC_MESSAGES", "LANG"];
    let set = names.iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty());
    set.unwrap_or_else(|| match env::consts::OS {
        "windows" => registry(r"HKCU\Control Panel\International", "LocaleName"),
        _ => "*".into(),
    })
}

fn registry(path: &str, value: &str) -> String {
    let shown = output("reg", &["query", path, "/v", value, "/reg:64"]);
    shown.split_whitespace().last().unwrap_or_default().to_owned()
}

/// What a command prints; "" if it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    #[cfg(windows)] // without a window of its own
    std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0800_0000);
    let output = command.args(arguments).output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default()).into_owned()
}

fn main() {
    let ask = |problem: &str| {
        println!("{problem}\nLicense key (empty for a trial): ");
        io::stdin().lines().next().and_then(Result::ok).unwrap_or_default()
    };
    let stopped = |message: String| {
        eprintln!("{message}");
        std::process::exit(1);
    };
    match License::start(ask, stopped) {
        Ok(license) => {
            let how = if license.offline { "Running without the server" } else { "Running" };
            println!("{how}. Press Enter to end.");
            io::stdin().lines().next(); // your program works here
        }
        Err(error) => stopped(error.text),
    }
}
