// Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.
//
// Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
// session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
// Node 18 or newer, or Electron's main process; nothing to install. The end of the file shows how to use it.
'use strict';
const { createHash, createPublicKey, randomBytes, randomUUID, verify } = require('node:crypto');
const { execFileSync } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { buffer } = require('node:stream/consumers');
const { setTimeout: sleep } = require('node:timers/promises');

const SERVER = "https://licenses.example.org";
const API_KEY = "YOUR-API-KEY";
const PRODUCT = "Example product"; // part of each device's fingerprint: never change it once customers use the program
const VERSION = "1.0.0"; // of your program
const CA_FILE = "ca.pem"; // the certificate to trust, beside this file; "" to trust those of Node
const PUBLIC_KEYS = { // the current and the next one, so that a key rotation needs no new release of the program
  "CURRENT-KEY-ID": "CURRENT-PUBLIC-KEY",
  "NEXT-KEY-ID": "NEXT-PUBLIC-KEY",
};

const TEXTS = { unreachable: ['The license server cannot be reached.', 'Der Lizenzserver ist nicht erreichbar.'],
  canceled: ['No license key was entered.', 'Es wurde kein Lizenzschlüssel eingegeben.'] };
const LANGUAGE = Intl.DateTimeFormat().resolvedOptions().locale;

/** The message is for the user. `code` never changes; 'unreachable': no signed response, `cause` says why. */
class LicenseError extends Error {
  constructor(code, { message, cause, after = 0, end_reason: endReason, field } = {}) {
    super(message ?? TEXTS[code][Number(LANGUAGE.startsWith('de'))], { cause });
    Object.assign(this, { name: 'LicenseError', code, after, endReason, field });
  }
}

/**
 * `ask(problem)` returns a promise of the license key that the user enters, '' for a trial, null if the user cancels;
 * `problem` says why the last key was refused. `stopped(message)` is called if the program has to stop.
 */
class License {
  key = '';
  session = null; // the response of session/start; null without the server
  lease = null;
  features = []; // what was sold with the license
  #stop = new AbortController();
  #stopping = once(this.#stop.signal, 'abort').then(() => ({}));
  #keptAlive = Promise.resolve();

  constructor({ ask, stopped }) {
    Object.assign(this, { ask, stopped });
  }

  /** Starts a session; without the server, uses the lease of the last one. Throws LicenseError. */
  async start() {
    const message = `The license server's certificate is missing: ${CA_PATH}`;
    if (!fs.existsSync(CA_PATH)) throw new LicenseError('ca_file_missing', { message });
    this.key = load('key');
    for (let problem = ''; !this.session && !this.lease;) {
      const entered = this.key || await this.ask(problem);
      if (entered == null) throw new LicenseError('canceled');
      this.key = save('key', entered.trim());
      try {
        await this.#startSession(3000);
      } catch (error) {
        if (error.code === 'license_not_found' || error.field === 'license_key') {
          [problem, this.key] = [error.message, License.forgetKey()]; // mistyped: asks again
        } else {
          this.lease = error.code === 'unreachable' ? validLease(this.key) : null;
          if (!this.lease) throw error;
          this.features = this.lease.features;
        }
      }
    }
    this.#keptAlive = this.#keepAlive();
  }

  /** Ends the session, which frees the license at once. Call it before the program exits. */
  async end() {
    this.#stop.abort();
    await Promise.race([this.#keptAlive, sleep(3500, null, { ref: false })]);
  }

  /** The next start asks for a key again: for a user who has bought another license. */
  static forgetKey = () => save('key', '');

  async #startSession(spare = 10_000) {
    const until = performance.now() + 10_000; // for all of its calls
    const device = { machine_id: os.hostname() || 'unknown', hardware_hash: DEVICE, version: VERSION };
    this.key ||= save('key', (await call('trial', device, until, spare)).license_key); // always the same for a device
    device.license_key = this.key;
    await call('activate', device, until, spare); // changes nothing if this device has a slot already
    this.session = await call('session/start', device, until, spare);
    this.lease = null;
    this.features = this.session.license.features;
    save('lease', this.session.lease ?? ''); // null if the shop does not allow work without the server
    return this.session;
  }

  #heartbeat = ({ session_token: token }) => Promise.race([this.#stopping, // `end` does not wait for it
    call('session/heartbeat', { license_key: this.key, session_token: token }, performance.now() + 5000, 5000)]);

  async #keepAlive() {
    let interval = this.session?.heartbeat_interval ?? 30;
    let [wait, pause] = [this.session ? interval : 1, 0.5];
    const next = () => sleep(wait * (800 + 200 * Math.random()), true, { signal: this.#stop.signal, ref: false });
    while (await next().catch(() => false)) { // with jitter, so that programs do not all call at the same moment
      try {
        const answer = await (this.session ? this.#heartbeat(this.session) : this.#startSession());
        [interval, wait, pause] = [answer.heartbeat_interval, answer.heartbeat_interval, 0.5];
      } catch (error) {
        const refused = error instanceof LicenseError && error.code !== 'unreachable';
        if (error.code === 'session_not_found' || error.endReason === 'timeout') {
          [this.session, wait] = [null, 0]; // the machine slept: starts another session
        } else if (refused || (this.lease && !validLease(this.key))) {
          this.session = this.lease = null; // ended, taken over, suspended, in use on another device, ...
          this.stopped(error.message);
          return;
        } else { // a session goes on without the network, and while the server is busy
          [wait, pause] = [Math.min(Math.max(error.after ?? 0, pause), interval), Math.min(1.5 * pause, interval / 2)];
        }
      }
    }
    const token = this.session?.session_token; // without its end, the session times out
    this.session = null;
    if (token) await call('session/end', { session_token: token }, performance.now() + 2500, 2000).catch(() => {});
  }
}

/** The response, until a moment. Calls again after a lost connection if `spare` milliseconds remain then. */
async function call(endpoint, body, until, spare) {
  for (;;) {
    try {
      return await attempt(endpoint, body, Math.ceil(Math.max(until - performance.now(), 2000)));
    } catch (error) {
      const pause = Math.max(1000 * error.after, 500 + 500 * Math.random());
      if (error.code !== 'unreachable' || performance.now() + pause + spare > until) throw error;
      await sleep(pause);
    }
  }
}

async function attempt(endpoint, body, timeout) {
  const [target, sent] = [`/api/license/${endpoint}`, Buffer.from(JSON.stringify(body))];
  const nonce = randomBytes(32).toString('base64');
  const response = await post(target, sent, timeout, {
    'X-API-Key': API_KEY, 'Content-Type': 'application/json', 'Content-Digest': digest(sent), 'Signature-Nonce': nonce,
    'Accept-Language': LANGUAGE,
    ...(endpoint === 'session/start' && { 'Idempotency-Key': START_KEY }),
  }).catch((cause) => { throw new LicenseError('unreachable', { cause }); });
  const { status, headers, received } = response;
  const busy = status === 429 || status === 503;
  if (busy || !isSigned(target, sent, nonce, response)) {
    const cause = busy ? 'the server is busy' : 'the response is not signed by the license server';
    throw new LicenseError('unreachable', { cause, after: Number(headers['retry-after']) || 0 });
  }
  const answer = JSON.parse(received);
  if (status < 400) return answer;
  if (/^(license|version|device)_/.test(answer.code)) save('lease', ''); // nor may the program work without the server
  const url = answer.download_url ? ` ${answer.download_url}` : ''; // of a version that may run
  throw new LicenseError(answer.code, { ...answer, message: answer.detail + url });
}

/** Each call has a connection of its own. */
async function post(target, sent, timeout, headers) {
  const ca = CA_FILE ? fs.readFileSync(CA_PATH) : undefined;
  const options = { method: 'POST', headers, ca, agent: false, signal: AbortSignal.timeout(timeout) };
  const request = https.request(SERVER + target, options).on('error', () => {}).end(sent);
  const [response] = await once(request, 'response');
  return { status: response.statusCode, headers: response.headers, received: await buffer(response) };
}

const digest = (body) => `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;

/** Whether the server has signed exactly this response to exactly this request. */
function isSigned(target, sent, nonce, { status, headers, received }) {
  const input = headers['signature-input'] ?? '';
  const covered = '("@status" "content-digest" "@method";req "@path";req "content-digest";req)';
  const parameters = /^;created=\d+;keyid="(\w+)";alg="ed25519";nonce="([^"]+)"$/.exec(input.slice(5 + covered.length));
  const signature = /^sig1=:([A-Za-z0-9+/]{86}==):$/.exec(headers.signature ?? '');
  if (!input.startsWith(`sig1=${covered};`) || !signature || parameters?.[2] !== nonce) return false;
  const base = `"@status": ${status}\n"content-digest": ${digest(received)}\n"@method";req: POST\n`
    + `"@path";req: ${target}\n"content-digest";req: ${digest(sent)}\n"@signature-params": ${input.slice(5)}`;
  return isGenuine(parameters[1], base, Buffer.from(signature[1], 'base64'));
}

function isGenuine(keyId, message, signature) {
  if (!Object.hasOwn(PUBLIC_KEYS, keyId)) return false;
  const head = Buffer.from('302a300506032b6570032100', 'hex'); // of every Ed25519 key (RFC 8410)
  const key = Buffer.concat([head, Buffer.from(PUBLIC_KEYS[keyId], 'base64')]);
  return verify(null, Buffer.from(message), createPublicKey({ key, format: 'der', type: 'spki' }), signature);
}

/** What `action` returns; undefined if it throws. */
function tried(action) {
  try { return action(); } catch { return undefined; }
}

/** The lease of the last start, if it is for this license and device, and the clock is within its term. */
const validLease = (licenseKey) => tried(() => {
  const [head, claims, signature] = load('lease').split('.');
  const [header, lease] = [head, claims].map((part) => JSON.parse(Buffer.from(part, 'base64url')));
  const key = licenseKey.toUpperCase().replace(/[^0-9A-Z]/g, '').replaceAll('O', '0').replace(/[IL]/g, '1');
  const own = header.typ === 'lease+jwt' && lease.license === key && lease.hardware_hash === DEVICE;
  const now = Date.now() / 1000; // not valid either if the clock is behind
  const genuine = own && isGenuine(header.kid, `${head}.${claims}`, Buffer.from(signature, 'base64url'));
  return genuine && lease.iat - 300 <= now && now < lease.exp ? lease : null;
});

/** A file in the user's folder for application data; the program's own folder may be read-only. */
function dataFile(name) {
  const { LOCALAPPDATA, XDG_DATA_HOME } = process.env;
  const systems = { win32: [LOCALAPPDATA, 'AppData/Local'], darwin: ['', 'Library/Application Support'] };
  const [base, local] = systems[process.platform] ?? [XDG_DATA_HOME, '.local/share'];
  const product = PRODUCT.replace(/[^\p{L}\p{N}_-]+/gu, '-').replace(/^-+|-+$/g, '') || 'program';
  const folder = path.join(base || path.join(os.homedir(), local), product);
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 }); // the key is none of other users' business
  return path.join(folder, name);
}

const load = (name) => tried(() => fs.readFileSync(dataFile(name), 'utf8')) ?? '';
const save = (name, text) => {
  tried(() => fs.writeFileSync(dataFile(name), text)); // if that fails, the program works all the same
  return text;
};

/**
 * The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. A second copy
 * that runs at the same time uses a key of its own.
 */
function ownStartKey() {
  const [stored, owner] = load('start').split(' ');
  const inUse = owner && Number(owner) !== process.pid && tried(() => process.kill(Number(owner), 0));
  return inUse ? randomUUID() : save('start', `${stored || randomUUID()} ${process.pid}`).split(' ')[0];
}

/** The system's id of this device, else a random one that is saved; hashed, so that no other product can use it. */
function fingerprint() {
  const run = (...command) => execFileSync(command[0], command.slice(1), { encoding: 'utf8', windowsHide: true });
  const machine = tried({
    win32: () => /REG_SZ\s+(\S+)/.exec(
      run('reg', 'query', 'HKLM\\SOFTWARE\\Microsoft\\Cryptography', '/v', 'MachineGuid', '/reg:64'))[1],
    darwin: () => /"IOPlatformUUID" = "(.+)"/.exec(run('/usr/sbin/ioreg', '-rd1', '-c', 'IOPlatformExpertDevice'))[1],
    linux: () => /^([0-9a-f]{32})\n?$/.exec(fs.readFileSync('/etc/machine-id', 'utf8'))[1],
  }[process.platform]) || load('device') || save('device', randomUUID());
  return createHash('sha256').update(`${PRODUCT}\n${machine}`).digest('hex');
}

const CA_PATH = path.join(__dirname, CA_FILE); // the folder, without a CA_FILE
const DEVICE = fingerprint();
const START_KEY = ownStartKey();

module.exports = { License, LicenseError };

if (require.main === module) {
  const lines = require('node:readline').createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const question = async (text) => {
    process.stdout.write(text);
    return (await lines.next()).value; // undefined at the end of the input: canceled
  };
  const exit = async (message) => {
    await license.end();
    if (message) console.error(message);
    process.exit(message ? 1 : 0);
  };
  const ask = (problem) => question(`${problem}\nLicense key (empty for a trial): `);
  const license = new License({ ask, stopped: exit });
  process.on('SIGINT', () => exit()).on('SIGTERM', () => exit());
  license.start().then(async () => {
    console.log(license.session ? 'Running. Press Enter to end.' : 'Running without the server. Press Enter to end.');
    await question(''); // your program works here
    exit();
  }).catch((error) => exit(error.message));
}
