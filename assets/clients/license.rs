//! Runs a program under a license: takes a slot for this device, keeps a session alive while it works, ends it.
//!
//! Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
//! session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
//! Rust 1.89 or newer; `main` shows how to use it. Crates:
//!   cargo add ureq --no-default-features --features rustls
//!   cargo add ed25519-dalek base64 serde_json sha2
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};
use std::{env, error::Error, fs, io, io::Write, mem, path::PathBuf, process, thread};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const SERVER: &str = "https://licenses.example.org";
const API_KEY: &str = "YOUR-API-KEY";
const PRODUCT: &str = "Example product"; // part of each fingerprint: never change it once customers use the program
const VERSION: &str = "1.0.0"; // of your program
const CA_FILE: &str = "ca.pem"; // the certificate to trust, beside the program; "" to trust those of ureq
const PUBLIC_KEYS: [(&str, &str); 2] = [
    ("CURRENT-KEY-ID", "CURRENT-PUBLIC-KEY"),
    ("NEXT-KEY-ID", "NEXT-PUBLIC-KEY"), // so that a key rotation needs no new release of the program
];
static DEVICE: LazyLock<String> = LazyLock::new(fingerprint);
static START_KEY: LazyLock<String> = LazyLock::new(|| stored_start_key().unwrap_or_else(|_| random_id()));
type Result<T> = std::result::Result<T, LicenseError>;

/// The text is for the user. `code` never changes; "unreachable": no signed response, `cause` says why.
#[derive(Debug)]
pub struct LicenseError {
    pub text: String,
    pub code: String,
    pub cause: String,
    after: Duration, // to wait before the next call
    answer: Value,   // with what belongs to the code
}

impl<E: Error> From<E> for LicenseError {
    fn from(error: E) -> Self {
        let texts = ["The license server cannot be reached.", "Der Lizenzserver ist nicht erreichbar."];
        Self { cause: error.to_string(), ..Self::new("unreachable", texts) }
    }
}

impl LicenseError {
    fn new(code: &str, texts: [&str; 2]) -> Self {
        let text = texts[usize::from(language().starts_with("de"))].to_owned();
        let after = Duration::from_secs_f64(random(0.5));
        Self { text, code: code.to_owned(), cause: String::new(), after, answer: Value::Null }
    }
}

/// Ends when it is dropped, which frees the license at once; without the network, that takes seconds.
pub struct License {
    pub features: Vec<String>, // what was sold with the license
    pub session: Value,        // the response of session/start; null if it starts on a lease, without the server
    stop: Option<mpsc::Sender<()>>,
    ended: Mutex<mpsc::Receiver<()>>, // disconnected by the background thread before it calls `stopped`
}

impl License {
    /// Starts a session; without the server, uses the lease of the last one. `ask` gets the license key from the user,
    /// "" for a trial, `None` if the user cancels; its argument says why the last key was refused. `stopped` is called
    /// on a background thread, with a message, if the program has to stop.
    pub fn start(ask: impl Fn(&str) -> Option<String>, stopped: impl FnOnce(String) + Send + 'static) -> Result<Self> {
        let file = ca_file()?;
        if !file.exists() {
            let text = format!("The license server's certificate is missing: {}", file.display());
            return Err(LicenseError::new("ca_file_missing", [&text, &text]));
        }
        let (mut work, mut problem) = (Work { key: load("key"), ..Work::default() }, String::new());
        while work.session.is_null() && work.lease.is_null() {
            if work.key.is_empty() {
                let texts = ["No license key was entered.", "Es wurde kein Lizenzschlüssel eingegeben."];
                work.key = ask(&problem).ok_or_else(|| LicenseError::new("canceled", texts))?.trim().to_owned();
                save("key", &work.key);
            }
            match work.start(3) {
                Err(error) if error.code == "license_not_found" || error.answer["field"] == "license_key" => {
                    problem = error.text; // mistyped: asks again
                    work.key.clear();
                    Self::forget_key();
                }
                Err(error) if error.code == "unreachable" => work.lease = work.valid_lease().ok_or(error)?,
                result => drop(result?),
            }
        }
        let session = work.session.clone();
        let sold = if session.is_null() { &work.lease } else { &session["license"] };
        let features = serde_json::from_value(sold["features"].clone()).unwrap_or_default();
        let ((stop, stopping), (ending, ended)) = (mpsc::channel(), mpsc::channel());
        thread::spawn(move || {
            let message = work.keep_alive(&stopping);
            drop(ending); // `stopped` may drop the `License`, or wait for a thread that does
            message.map(stopped)
        });
        Ok(Self { features, session, stop: Some(stop), ended: ended.into() })
    }

    /// The next start asks for a key again: for a user who has bought another license.
    pub fn forget_key() {
        save("key", "");
    }
}

impl Drop for License {
    fn drop(&mut self) {
        self.stop = None;
        self.ended.get_mut().map(|ended| ended.recv_timeout(Duration::from_secs(3))).ok();
    }
}

/// What the background thread owns; null without a session, or without a lease.
#[derive(Default)]
struct Work {
    key: String,
    session: Value,
    lease: Value,
}

impl Work {
    /// Returns the seconds between heartbeats.
    fn start(&mut self, spare: u64) -> Result<f64> {
        let until = Instant::now() + Duration::from_secs(10); // for all of its calls
        let name = env::var("COMPUTERNAME").unwrap_or_else(|_| output("uname", &["-n"]));
        let name = if name.is_empty() { "unknown" } else { &name };
        let mut device = json!({ "machine_id": name, "hardware_hash": *DEVICE, "version": VERSION });
        if self.key.is_empty() {
            self.key = text(&call("trial", &device, until, spare)?["license_key"]); // always the same for a device
            save("key", &self.key);
        }
        device["license_key"] = self.key.as_str().into();
        call("activate", &device, until, spare)?; // changes nothing if this device has a slot already
        (self.session, self.lease) = (call("session/start", &device, until, spare)?, Value::Null);
        save("lease", &text(&self.session["lease"])); // null if the shop does not allow work without the server
        Ok(self.session["heartbeat_interval"].as_f64().unwrap_or(30.0))
    }

    fn heartbeat(&mut self) -> Result<f64> {
        let body = json!({ "license_key": self.key, "session_token": self.session["session_token"] });
        let until = Instant::now() + Duration::from_secs(5);
        Ok(call("session/heartbeat", &body, until, 5)?["heartbeat_interval"].as_f64().unwrap_or(30.0))
    }

    /// Returns why the program has to stop, or `None` once the `License` is dropped.
    fn keep_alive(&mut self, stopping: &mpsc::Receiver<()>) -> Option<String> {
        let jittered = |seconds| Duration::from_secs_f64(seconds * random(0.8)); // not all at once
        let mut interval = self.session["heartbeat_interval"].as_f64().unwrap_or(30.0);
        let (mut wait, mut pause) = (if self.session.is_null() { 1.0 } else { interval }, 0.5);
        while stopping.recv_timeout(jittered(wait)) == Err(mpsc::RecvTimeoutError::Timeout) {
            match if self.session.is_null() { self.start(10) } else { self.heartbeat() } {
                Ok(seconds) => (interval, wait, pause) = (seconds, seconds, 0.5),
                Err(error) if error.code == "session_not_found" || error.answer["end_reason"] == "timeout" => {
                    (self.session, wait) = (Value::Null, 0.0); // the machine slept: starts another session
                }
                Err(error) if error.code != "unreachable" => return Some(error.text), // taken over, ...
                Err(error) if !self.lease.is_null() && self.valid_lease().is_none() => return Some(error.text),
                Err(error) => {
                    wait = error.after.as_secs_f64().max(pause).min(interval); // goes on without the network
                    pause = (1.5 * pause).min(interval / 2.0);
                }
            }
        }
        if let Some(token) = self.session["session_token"].as_str() {
            let until = Instant::now() + Duration::from_millis(2500);
            call("session/end", &json!({ "session_token": token }), until, 2).ok(); // else it times out
        }
        None
    }

    /// The lease of the last start, if it is for this license and device and its term includes now.
    fn valid_lease(&self) -> Option<Value> {
        let token = load("lease");
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, lease) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let parsed = |part| serde_json::from_slice::<Value>(&decode(part)?).ok();
        let (header, lease) = (parsed(header)?, parsed(lease)?);
        let key = self.key.to_uppercase().replace('O', "0").replace(['I', 'L'], "1");
        let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let own = header["typ"] == "lease+jwt" && lease["license"] == key && lease["hardware_hash"] == *DEVICE;
        let now = SystemTime::UNIX_EPOCH.elapsed().ok()?.as_secs(); // not valid if the clock is behind
        let in_term = lease["iat"].as_u64()? <= now + 300 && now < lease["exp"].as_u64()?;
        verify(header["kid"].as_str()?, signed, &decode(signature)?)?;
        (own && in_term).then_some(lease)
    }
}

/// The server's response, until a moment. Calls again after a lost connection if `spare` seconds remain then.
fn call(endpoint: &str, body: &Value, until: Instant, spare: u64) -> Result<Value> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let again = until.checked_sub(Duration::from_secs(spare)).unwrap_or(until);
        match attempt(endpoint, body, left.max(Duration::from_secs(2))) {
            Err(lost) if lost.code == "unreachable" && Instant::now() + lost.after < again => thread::sleep(lost.after),
            result => return result,
        }
    }
}

fn attempt(endpoint: &str, body: &Value, timeout: Duration) -> Result<Value> {
    let (path, sent, nonce) = (format!("/api/license/{endpoint}"), body.to_string(), random_id());
    let mut request = agent(timeout)?
        .post(format!("{SERVER}{path}"))
        .header("X-API-Key", API_KEY)
        .header("Content-Type", "application/json")
        .header("Content-Digest", digest(sent.as_bytes()))
        .header("Signature-Nonce", &nonce)
        .header("Accept-Language", language());
    if endpoint == "session/start" {
        request = request.header("Idempotency-Key", &*START_KEY);
    }
    let mut response = request.send(&sent)?;
    let (status, received) = (response.status().as_u16(), response.body_mut().read_to_vec()?);
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let busy = status == 429 || status == 503;
    let (asked, answered) = (digest(sent.as_bytes()), digest(&received));
    let exchange = format!(
        "\"@status\": {status}\n\"content-digest\": {answered}\n\"@method\";req: POST\n\"@path\";req: {path}\n\
         \"content-digest\";req: {asked}"
    );
    if busy || is_signed(&exchange, &nonce, header("Signature-Input"), header("Signature")).is_none() {
        let problem = if busy { "the server is busy" } else { "the response is not signed by the license server" };
        let error = LicenseError::from(io::Error::other(problem));
        let after = Duration::from_secs(header("Retry-After").parse::<u16>().unwrap_or(0).into());
        return Err(LicenseError { after: error.after.max(after), ..error });
    }
    let answer: Value = serde_json::from_slice(&received)?;
    if status < 400 {
        return Ok(answer);
    }
    let code = text(&answer["code"]);
    if ["license_", "version_", "device_"].iter().any(|kind| code.starts_with(kind)) {
        save("lease", ""); // nor may the program work without the server
    }
    let told = format!("{} {}", text(&answer["detail"]), text(&answer["download_url"])); // of a version that may run
    Err(LicenseError { answer, ..LicenseError::new(&code, [told.trim_end(); 2]) })
}

/// The folder of the program if there is no `CA_FILE`.
fn ca_file() -> Result<PathBuf> {
    let program = env::current_exe()?.canonicalize()?;
    Ok(program.parent().map(|folder| folder.join(CA_FILE)).unwrap_or_default())
}

/// For one call: each has a connection of its own.
fn agent(timeout: Duration) -> Result<ureq::Agent> {
    let mut tls = TlsConfig::builder();
    if !CA_FILE.is_empty() {
        tls = tls.root_certs(RootCerts::from(vec![Certificate::from_pem(&fs::read(ca_file()?)?)?]));
    }
    let config = ureq::Agent::config_builder().tls_config(tls.build()).max_redirects(0).http_status_as_error(false);
    Ok(config.timeout_global(Some(timeout)).build().into())
}

/// Whether the server has signed exactly this response to exactly this request (RFC 9421).
fn is_signed(exchange: &str, nonce: &str, input: &str, signature: &str) -> Option<()> {
    let parameters = input.strip_prefix("sig1=")?;
    let covered = r#"("@status" "content-digest" "@method";req "@path";req "content-digest";req)"#;
    let (_, rest) = parameters.strip_prefix(covered)?.split_once(";keyid=\"")?;
    let key_id = rest.strip_suffix(&format!("\";alg=\"ed25519\";nonce=\"{nonce}\""))?;
    let signature = BASE64_STANDARD.decode(signature.strip_prefix("sig1=:")?.strip_suffix(':')?).ok()?;
    verify(key_id, &format!("{exchange}\n\"@signature-params\": {parameters}"), &signature)
}

fn verify(key_id: &str, message: &str, signature: &[u8]) -> Option<()> {
    let (_, key) = PUBLIC_KEYS.iter().find(|(id, _)| *id == key_id)?;
    let key = VerifyingKey::try_from(BASE64_STANDARD.decode(key).ok()?.as_slice()).ok()?;
    key.verify_strict(message.as_bytes(), &Signature::from_slice(signature).ok()?).ok()
}

fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
}

/// The string, or "" where there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn random_id() -> String {
    [0, 1].map(|half| format!("{:016x}", RandomState::new().hash_one(half))).concat() // seeded by the system
}

fn random(from: f64) -> f64 {
    from + (1.0 - from) * (RandomState::new().hash_one(0) as f64 / u64::MAX as f64)
}

/// A file in the user's folder for application data; the program's own folder may be read-only.
fn data_file(name: &str) -> io::Result<PathBuf> {
    let (mac, variable) = (cfg!(target_os = "macos"), if cfg!(windows) { "LOCALAPPDATA" } else { "XDG_DATA_HOME" });
    let local = if mac { "Library/Application Support" } else { ".local/share" };
    let base = env::var_os(variable).filter(|base| !mac && !base.is_empty()).map(PathBuf::from);
    let base = base.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(local));
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

/// The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The file
/// stays locked until the program ends: a second copy that runs at the same time uses another key.
fn stored_start_key() -> io::Result<String> {
    let mut file = fs::File::options().read(true).append(true).create(true).open(data_file("start")?)?;
    file.try_lock()?;
    let mut key = io::read_to_string(&file)?;
    if key.is_empty() {
        key = random_id();
        file.write_all(key.as_bytes())?;
    }
    mem::forget(file);
    Ok(key)
}

/// The system's id of this device, else a random one that is saved; hashed, so that no other product can use it.
fn fingerprint() -> String {
    let uuid = r#"/usr/sbin/ioreg -rd1 -c IOPlatformExpertDevice | awk -F\" '/IOPlatformUUID/ { print $4 }'"#;
    let mut id = match env::consts::OS {
        "windows" => registry(r"HKLM\SOFTWARE\Microsoft\Cryptography", "MachineGuid"),
        "macos" => output("sh", &["-c", uuid]),
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
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let windows = || registry(r"HKCU\Control Panel\International", "LocaleName");
    let otherwise = || if cfg!(windows) { windows() } else { "*".to_owned() };
    ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set).unwrap_or_else(otherwise)
}

fn registry(path: &str, value: &str) -> String {
    let shown = output("reg", &["query", path, "/v", value, "/reg:64"]);
    shown.split_whitespace().last().unwrap_or_default().to_owned()
}

/// What a command prints; "" if it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = process::Command::new(program);
    #[cfg(windows)] // without a window of its own
    std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0800_0000);
    let output = command.args(arguments).output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
}

fn main() {
    let line = || io::stdin().lines().next().and_then(io::Result::ok); // `None` at the end of the input: canceled
    let ask = |problem: &str| {
        println!("{problem}\nLicense key (empty for a trial): ");
        line()
    };
    let stopped = |message: String| {
        eprintln!("{message}");
        process::exit(1);
    };
    if let Ok(license) = License::start(ask, stopped).map_err(|error| stopped(error.text)) {
        println!("Running{}. Press Enter to end.", if license.session.is_null() { " without the server" } else { "" });
        line(); // your program works here
    }
}
