<?php
/*
 * The website's side of the domain handshake with a license server: one file, PHP 8, only extensions that come with
 * PHP (openssl, sodium).
 *
 * Fill in the first five names below. Have your web server run this file for POST requests to CALLBACK; for Apache:
 *     RewriteRule ^\.well-known/license-server$ /site.php [L]
 * Then call the operations, from your own pages, or from the command line as the web server's user:
 *     require 'site.php';
 *     print_r(LicenseServer\versions());
 * Each operation returns the information that the server sent to this domain, or null if refused or after 30 seconds.
 */
declare(strict_types=1);

namespace LicenseServer;

const SERVER = 'https://licenses.example.org';      // the license server
const PUBLIC_KEY = 'AAAA=';                         // its public keys, current and next: `license-server config show`
const ORIGIN = 'https://www.example.org';           // this site's origin, for the server's calls
const CALLBACK = '/.well-known/license-server';     // the path of the server's calls
const AUTHORITY = null;                             // a PEM file, if the server's certificate is self-signed
const STORE = null;                                 // a folder for ids; null: one in the folder for temporary files
const LIFE = 30;                                    // seconds that an id is stored

/** Every released version of the product with this short name; by default of the one that this site has a license of. */
function versions(?string $product = null): ?array { return handshake('versions', ['product' => $product]); }

/** The state of the license. */
function license(string $key): ?array { return handshake('license', ['license_key' => $key]); }

/** Binds the license to this domain. */
function register(string $key): ?array { return handshake('register', ['license_key' => $key]); }

/** Unbinds the license from a domain. */
function deregister(string $key, string $domain): ?array
{
    return handshake('deregister', ['license_key' => $key, 'domain' => $domain]);
}

/** Starts the transfer of the license to another domain. */
function transfer(string $key, string $new_domain): ?array
{
    return handshake('transfer', ['license_key' => $key, 'new_domain' => $new_domain]);
}

/** Cancels the transfer. */
function cancel_transfer(string $key): ?array { return handshake('cancel_transfer', ['license_key' => $key]); }

function handshake(string $operation, array $details): ?array
{
    $request_id = bin2hex(random_bytes(32));
    $request = ['domain' => parse_url(ORIGIN, PHP_URL_HOST), 'request_id' => $request_id];
    if (isset($details['license_key']) && $operation !== 'deregister') {
        $request['license_key'] = $details['license_key'];
    }
    write($request_id, ['awaits' => 'challenge']);
    $challenged = post('/api/site/request', $request) ? wait($request_id, 'transaction_id') : null;
    forget($request_id);
    if ($challenged === null) {
        return null;
    }
    $transaction_id = $challenged['transaction_id'];
    $details += ['transaction_id' => $transaction_id, 'operation' => $operation];
    $delivered = post('/api/site/transaction', $details) ? wait($transaction_id, 'information') : null;
    forget($transaction_id);
    return $delivered !== null && $delivered['operation'] === $operation ? $delivered['information'] : null;
}

function post(string $path, array $body): bool
{
    $context = stream_context_create([
        'http' => [
            'method' => 'POST',
            'header' => "Content-Type: application/json\r\nConnection: close",
            'content' => json_encode($body),
            'timeout' => 10,
            'follow_location' => 0,
            'ignore_errors' => true,
        ],
        'ssl' => AUTHORITY === null ? [] : ['cafile' => AUTHORITY],
    ]);
    $response = @file_get_contents(SERVER . $path, false, $context);
    return $response !== false && preg_match('#^HTTP/\S+ 202#', $http_response_header[0] ?? '') === 1;
}

/** Handles the server's callback; runs when your web server runs this file. */
function callback(): void
{
    $fits = $_SERVER['REQUEST_METHOD'] === 'POST' && strtok($_SERVER['REQUEST_URI'], '?') === CALLBACK;
    $headers = [];
    foreach ($_SERVER as $name => $value) {
        if (str_starts_with($name, 'HTTP_')) {
            $headers[strtolower(strtr(substr($name, 5), '_', '-'))] = $value;
        }
    }
    $taken = $fits && answer($headers, (string) file_get_contents('php://input', false, null, 0, 16385));
    http_response_code($taken ? 200 : 404);
}

/** Returns whether the callback is valid and expected: respond with 200 if so, otherwise with 404. */
function answer(array $headers, string $body): bool
{
    if (!is_signed($headers, $body)) {
        return false;
    }
    $message = json_decode($body, true);
    if ($message['step'] === 'challenge') {
        if (read($message['request_id']) !== ['awaits' => 'challenge']) {
            return false;
        }
        write($message['transaction_id'], ['awaits' => 'delivery']);
        write($message['request_id'], ['transaction_id' => $message['transaction_id']]);
        return true;
    }
    if ($message['step'] !== 'delivery' || read($message['transaction_id']) !== ['awaits' => 'delivery']) {
        return false;
    }
    $delivered = ['operation' => $message['operation'], 'information' => $message['information']];
    write($message['transaction_id'], $delivered);
    return true;
}

/** Whether the server signed exactly this message to this address within 5 minutes (RFC 9421, RFC 9530). */
function is_signed(array $headers, string $body): bool
{
    $given = $headers['signature-input'] ?? '';
    $form = '#^sig1=(\("@method" "@target-uri" "content-digest"\);created=(\d{1,12});keyid="[0-9a-f]+";alg="ed25519")$#D';
    $digest = 'sha-256=:' . base64_encode(hash('sha256', $body, true)) . ':';
    if (
        preg_match($form, $given, $params) !== 1
        || preg_match('#^sig1=:([A-Za-z0-9+/]{86}==):$#D', $headers['signature'] ?? '', $signature) !== 1
        || !hash_equals($digest, $headers['content-digest'] ?? '')
        || abs(time() - (int) $params[2]) > 300
    ) {
        return false;
    }
    $base = "\"@method\": POST\n\"@target-uri\": " . ORIGIN . CALLBACK
        . "\n\"content-digest\": $digest\n\"@signature-params\": $params[1]";
    $signed = fn ($key) => sodium_crypto_sign_verify_detached(base64_decode($signature[1]), $base, base64_decode($key));
    return array_filter(explode(' ', PUBLIC_KEY), $signed) !== [];
}

// Stored for 30 seconds: one file per id, readable by this user only.

function path(string $id): string
{
    $store = STORE ?? sys_get_temp_dir() . '/license-handshake-' . substr(hash('sha256', __DIR__), 0, 16);
    @mkdir($store, 0700);
    clearstatcache();
    if (is_link($store) || !is_writable($store) || (fileperms($store) & 0077) !== 0) {
        throw new \RuntimeException("$store is accessible to other users: choose another STORE");
    }
    return preg_match('/^[0-9a-f]{64}$/D', $id) === 1 ? "$store/$id" : '/nonexistent/id';
}

function write(string $id, array $value): void
{
    $draft = path($id) . '.new';
    file_put_contents($draft, json_encode($value + ['until' => time() + LIFE]));
    chmod($draft, 0600);
    rename($draft, path($id));
}

function read(string $id): ?array
{
    $value = json_decode((string) @file_get_contents(path($id)), true);
    if (!is_array($value) || $value['until'] < time()) {
        return null;
    }
    unset($value['until']);
    return $value;
}

function forget(string $id): void
{
    @unlink(path($id));
    foreach (glob(dirname(path($id)) . '/*') as $file) {
        if (@filemtime($file) < time() - LIFE) {
            @unlink($file);
        }
    }
}

function wait(string $id, string $name): ?array
{
    for ($second = 0; $second < LIFE; $second++) {
        sleep(1);
        $value = read($id);
        if (isset($value[$name])) {
            return $value;
        }
    }
    return null;
}

// Run by a web server, and not included by another page: this is the server's callback.
if (PHP_SAPI !== 'cli' && realpath($_SERVER['SCRIPT_FILENAME'] ?? '') === __FILE__) {
    callback();
}
