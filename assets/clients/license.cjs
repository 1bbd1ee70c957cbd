// Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.
//
// Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
// session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
// Node 18 or newer, or Electron's main process; nothing to install. The end of the file shows how to use it in Node. In
// Electron (list ca.pem among the `files` of your packager):
//   const { License } = require('./license.cjs');
//   const refuse = (message) => { dialog.showErrorBox('License', message); app.exit(1); };
//   const license = new License({ ask: askInAWindow, stopped: refuse });
//   app.whenReady().then(() => license.start()).then(openMainWindow, (error) => refuse(error.message));
//   app.on('will-quit', (event) => { event.preventDefault(); license.end().then(() => app.exit()); });
'use strict';
const { createHash, createPublicKey, randomBytes, randomUUID, verify } = require('node:crypto');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
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

/** The message is for the user. `code` never changes; 'unreachable': no signed response, wait for `after` seconds. */
class LicenseError extends Error {
  constructor(message, { code = 'unreachable', after = 0, end_reason: endReason, field } = {}) {
    super(message);
    Object.assign(this, { name: 'LicenseError', code, after, endReason, field });
  }
}

/**
 * `ask(problem)` returns a promise of the license key that the user enters, or of '' for a trial; `problem` says why
 * the last key was refused. `stopped(message)` is called if the program has to stop.
 */
class License {
  key = '';
  session = null;
  lease = null;
  /** What was sold with the license. */
  features = [];
  #stop = new AbortController();
  #startKey = ownStartKey();
  #keptAlive = Promise.resolve();

  constructor({ ask, stopped }) {
    Object.assign(this, { ask, stopped });
  }

  /** Starts a session; without the server, uses the lease of the last one. Throws LicenseError. */
  async start() {
    let problem = '';
    let until = 0;
    while (!this.session && !this.lease) {
      this.key ||= load('key') || (await this.ask(problem)).trim();
      until ||= performance.now() + 4000;
      try {
        await this.#startSession();
      } catch (error) {
        if (error.code === 'license_not_found' || error.field === 'license_key') {
          problem = error.message; // mistyped: asks again
          this.key = save('key', '');
          until = 0;
        } else if (error.code === 'unreachable' && performance.now() + 1000 * error.after < until) {
          await sleep(1000 * Math.max(error.after, 0.5 + Math.random() / 2));
        } else {
          this.lease = error.code === 'unreachable' ? validLease(this.key) : null;
          if (!this.lease) throw error;
          this.features = this.lease.features;
        }
      }
    }
    this.#keptAlive = this.#keepAlive().catch(() => {});
  }

  /** Ends the session, which frees the license at once. Call it before the program exits. */
  async end() {
    this.#stop.abort();
    await this.#keptAlive; // it may be starting a session, which must be ended too
    const token = this.session?.session_token;
    this.session = null;
    if (token) await call('session/end', { session_token: token }).catch(() => {}); // else the session times out
  }

  async #startSession() {
    const device = { machine_id: os.hostname() || 'unknown', hardware_hash: fingerprint(), version: VERSION };
    this.key ||= (await call('trial', device)).license_key; // each device gets one trial, and always the same one
    device.license_key = this.key;
    await call('activate', device); // changes nothing if this device has a slot already
    this.session = await call('session/start', device, this.#startKey);
    this.lease = null;
    this.features = this.session.license.features;
    save('key', this.key);
    save('lease', this.session.lease ?? ''); // null if the shop does not allow work without the server
  }

  async #keepAlive() {
    let interval = this.session?.heartbeat_interval ?? 30;
    let [wait, pause] = [this.session ? interval : 1, 0.5];
    for (;;) {
      try { // with jitter, so that programs do not all call at the same moment
        await sleep(wait * (800 + 200 * Math.random()), null, { signal: this.#stop.signal, ref: false });
      } catch {
        return;
      }
      try {
        if (this.session) {
          const heartbeat = { license_key: this.key, session_token: this.session.session_token };
          interval = (await call('session/heartbeat', heartbeat)).heartbeat_interval;
        } else {
          await this.#startSession();
          interval = this.session.heartbeat_interval;
        }
        [wait, pause] = [interval, 0.5];
      } catch (error) {
        if (error.code === 'session_not_found' || error.endReason === 'timeout') {
          [this.session, wait] = [null, 0]; // the machine slept: starts another session
        } else if (error instanceof LicenseError && error.code !== 'unreachable') {
          // Ended by an administrator, taken over, suspended, expired, in use on another device, ...
          this.session = null;
          this.stopped(error.message);
          return;
        } else if (this.lease && !validLease(this.key)) {
          this.stopped('The license server could not be reached before the offline lease expired.');
          return;
        } else { // a session goes on without the network, and while the server is busy
          [wait, pause] = [Math.max(error.after ?? 0, pause), Math.min(2 * pause, interval / 2)];
        }
      }
    }
  }
}

/** The server's response. Each call has a connection of its own. */
async function call(endpoint, body, idempotencyKey) {
  const sent = Buffer.from(JSON.stringify(body));
  const nonce = randomBytes(32).toString('base64');
  const target = `/api/license/${endpoint}`;
  const send = () => post(target, sent, {
    'X-API-Key': API_KEY, 'Content-Type': 'application/json', 'Content-Digest': digest(sent), 'Signature-Nonce': nonce,
    'Accept-Language': Intl.DateTimeFormat().resolvedOptions().locale,
    ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }),
  });
  const response = await send().catch(send).catch((error) => { // the network may have lost the first
    throw new LicenseError(`The license server cannot be reached: ${error.message}`);
  });
  const { status, headers, received } = response;
  if (status === 429 || status === 503) {
    throw new LicenseError(`The license server is busy (${status}).`, { after: Number(headers['retry-after']) || 0 });
  }
  if (!isSigned(target, sent, nonce, response)) {
    throw new LicenseError('The license server cannot be reached: this response is not signed by it.');
  }
  const answer = JSON.parse(received);
  if (status < 400) return answer;
  if (/^(license|version|device)_/.test(answer.code)) save('lease', ''); // nor may the program work without the server
  const url = answer.download_url ? ` ${answer.download_url}` : ''; // of a version that may run
  throw new LicenseError(answer.detail + url, answer);
}

function post(target, sent, headers) {
  return new Promise((resolve, reject) => {
    const ca = CA_FILE ? fs.readFileSync(path.join(__dirname, CA_FILE)) : undefined;
    const options = { method: 'POST', headers, ca, agent: false, signal: AbortSignal.timeout(10_000) };
    https.request(SERVER + target, options, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk)).on('error', reject).on('end', () => {
        resolve({ status: response.statusCode, headers: response.headers, received: Buffer.concat(chunks) });
      });
    }).on('error', reject).end(sent);
  });
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

/** The lease of the last start, if it is for this license and device, and the clock is within its term. */
function validLease(licenseKey) {
  try {
    const [head, claims, signature] = load('lease').split('.');
    const [header, lease] = [head, claims].map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    const key = licenseKey.toUpperCase().replace(/[^0-9A-Z]/g, '').replaceAll('O', '0').replace(/[IL]/g, '1');
    const own = header.typ === 'lease+jwt' && lease.license === key && lease.hardware_hash === fingerprint();
    const now = Date.now() / 1000; // not valid either if the clock is behind
    const genuine = own && isGenuine(header.kid, `${head}.${claims}`, Buffer.from(signature, 'base64url'));
    return genuine && lease.iat - 300 <= now && now < lease.exp ? lease : null;
  } catch {
    return null;
  }
}

/** A file in the user's folder for application data; the program's own folder may be read-only. */
function dataFile(name) {
  const home = os.homedir();
  const base = {
    win32: process.env.LOCALAPPDATA || path.join(home, 'AppData/Local'),
    darwin: path.join(home, 'Library/Application Support'),
  }[process.platform] ?? (process.env.XDG_DATA_HOME || path.join(home, '.local/share'));
  const folder = path.join(base, PRODUCT.replace(/[^\p{L}\p{N}_-]+/gu, '-').replace(/^-+|-+$/g, '') || 'program');
  fs.mkdirSync(folder, { recursive: true });
  return path.join(folder, name);
}

function load(name) {
  try {
    return fs.readFileSync(dataFile(name), 'utf8');
  } catch {
    return '';
  }
}

function save(name, text) {
  try {
    fs.writeFileSync(dataFile(name), text);
  } catch { /* the program works all the same */ }
  return text;
}

/**
 * The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. A second copy
 * that runs at the same time uses a key of its own.
 */
function ownStartKey() {
  const [key, owner] = load('start').split(' ');
  try {
    if (owner && Number(owner) !== process.pid && process.kill(Number(owner), 0)) return randomUUID();
  } catch { /* the process that used the key has ended */ }
  return save('start', `${key || randomUUID()} ${process.pid}`).split(' ')[0];
}

/** The system's id of this device, else a random one that is saved; hashed, so that no other product can use it. */
function fingerprint() {
  let machine;
  try {
    const run = (...command) => execFileSync(command[0], command.slice(1), { encoding: 'utf8', windowsHide: true });
    machine = {
      win32: () => /REG_SZ\s+(\S+)/.exec(
        run('reg', 'query', 'HKLM\\SOFTWARE\\Microsoft\\Cryptography', '/v', 'MachineGuid', '/reg:64'))[1],
      darwin: () => /"IOPlatformUUID" = "(.+)"/.exec(run('/usr/sbin/ioreg', '-rd1', '-c', 'IOPlatformExpertDevice'))[1],
      linux: () => /^([0-9a-f]{32})\n?$/.exec(fs.readFileSync('/etc/machine-id', 'utf8'))[1],
    }[process.platform]();
  } catch {
    machine = load('device') || save('device', randomUUID());
  }
  return createHash('sha256').update(`${PRODUCT}\n${machine}`).digest('hex');
}

module.exports = { License, LicenseError };

if (require.main === module) {
  const input = require('node:readline').createInterface({ input: process.stdin, output: process.stdout });
  const closed = new Promise((resolve) => { input.once('close', () => resolve('')); });
  const question = (text) => Promise.race([new Promise((resolve) => { input.question(text, resolve); }), closed]);
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
