import java.io.*;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.*;
import java.security.cert.CertificateFactory;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.locks.LockSupport;
import java.util.function.*;
import java.util.regex.*;
import java.util.stream.Collectors;
import javax.net.ssl.*;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.
 * Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
 * session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
 * Java 11 or newer, nothing to install. {@link #main} shows how to use it.
 */
public final class License implements AutoCloseable {
    static final String SERVER = "https://licenses.example.org";
    static final String API_KEY = "YOUR-API-KEY";
    static final String PRODUCT = "Example product"; // part of each fingerprint: never change it once customers use it
    static final String VERSION = "1.0.0"; // of your program
    static final String CA_FILE = "ca.pem"; // the certificate to trust, beside the jar; "" to trust those of Java
    static final Map<String, String> PUBLIC_KEYS = Map.of( // the current and the next one, for a key rotation
        "CURRENT-KEY-ID", "CURRENT-PUBLIC-KEY",
        "NEXT-KEY-ID", "NEXT-PUBLIC-KEY");
    private static final String DEVICE = fingerprint();
    private static final String START_KEY = ownStartKey();
    private static FileChannel startFile;

    /** The message is for the user. The code never changes; "unreachable": no signed response, the cause says why. */
    @SuppressWarnings("serial")
    public static final class LicenseException extends Exception {
        public final String code;
        private final String answer; // with what belongs to the code
        private final double after; // seconds to wait before the next call

        LicenseException(String code, String message, Throwable cause, double after, String answer) {
            super(message, cause);
            this.code = code;
            this.answer = answer;
            this.after = Math.max(after, between(0.5, 1));
        }

        LicenseException(Throwable cause, double after) {
            this("unreachable", inLanguage("The license server cannot be reached.",
                "Der Lizenzserver ist nicht erreichbar."), cause, after, "");
        }
    }

    private final UnaryOperator<String> ask;
    private final Consumer<String> stopped;
    private final CountDownLatch stop = new CountDownLatch(1);
    private final Thread thread = new Thread(this::keepAlive, "license");
    private String key = "";
    private double interval = 30; // seconds between heartbeats
    private volatile String session;
    private volatile String lease;
    private volatile List<String> features = List.of();

    /**
     * @param ask gets the license key, "" for a trial, null if the user cancels; is told why the last key was refused
     * @param stopped is called with a message for the user, on a background thread, if the program has to stop
     */
    public License(UnaryOperator<String> ask, Consumer<String> stopped) {
        this.ask = ask;
        this.stopped = stopped;
        thread.setDaemon(true);
    }

    /** What was sold with the license. */
    public List<String> features() {
        return features;
    }

    /** The response of session/start, as JSON; null without it. */
    public String session() {
        return session;
    }

    /** The next start asks for a key again: for a user who has bought another license. */
    public static void forgetKey() {
        save("key", "");
    }

    /** Starts a session; without the server, uses the lease of the last one. */
    public void start() throws LicenseException {
        if (!Files.exists(caFile())) {
            String message = "The license server's certificate is missing: " + caFile();
            throw new LicenseException("ca_file_missing", message, null, 0, "");
        }
        String problem = "";
        key = load("key");
        while (session == null && lease == null) {
            String entered = key.isEmpty() ? ask.apply(problem) : key;
            if (entered == null) {
                throw new LicenseException("canceled", inLanguage("No license key was entered.",
                    "Es wurde kein Lizenzschl\u00fcssel eingegeben."), null, 0, "");
            }
            key = save("key", entered.trim());
            try {
                startSession(3);
            } catch (LicenseException error) {
                if (error.code.equals("license_not_found") || text(error.answer, "field").equals("license_key")) {
                    problem = error.getMessage(); // mistyped: asks again
                    key = save("key", "");
                    continue;
                }
                lease = error.code.equals("unreachable") ? validLease() : null;
                if (lease == null) throw error;
                features = words(lease, "features");
            }
        }
        Runtime.getRuntime().addShutdownHook(new Thread(this::close));
        thread.start();
    }

    /** Ends the session, which frees the license at once. Called at exit too. */
    @Override
    public synchronized void close() {
        boolean running = stop.getCount() > 0;
        stop.countDown();
        try {
            if (running) thread.join(1000); // it may be starting a session, which must be ended too
            String token = session == null ? "" : text(session, "session_token");
            if (!token.isEmpty()) call("session/end", json("session_token", token), now() + 2.5, 2);
        } catch (LicenseException | InterruptedException error) {
            // The session times out by itself.
        }
        session = lease = null;
    }

    private void startSession(int spare) throws LicenseException {
        double until = now() + 10; // for all of its calls
        String name = orElse("unknown", () -> InetAddress.getLocalHost().getHostName());
        if (key.isEmpty()) { // each device gets one trial, and always the same one
            String device = json("machine_id", name, "hardware_hash", DEVICE, "version", VERSION);
            key = save("key", text(call("trial", device, until, spare), "license_key"));
        }
        String device = json("license_key", key, "machine_id", name, "hardware_hash", DEVICE, "version", VERSION);
        call("activate", device, until, spare); // changes nothing if this device has a slot already
        session = call("session/start", device, until, spare);
        lease = null;
        interval = Double.parseDouble(text(session, "heartbeat_interval"));
        features = words(session, "features");
        save("lease", text(session, "lease")); // empty if the shop does not allow work without the server
    }

    private void keepAlive() {
        double wait = session == null ? 1 : interval;
        double pause = 0.5;
        while (!stopsWithin(wait * between(0.8, 1))) { // with jitter: programs should not call all at once
            try {
                if (session == null) {
                    startSession(10);
                } else {
                    String heartbeat = json("license_key", key, "session_token", text(session, "session_token"));
                    String answer = call("session/heartbeat", heartbeat, now() + 5, 5);
                    interval = Double.parseDouble(text(answer, "heartbeat_interval"));
                }
                wait = interval;
                pause = 0.5;
            } catch (LicenseException | RuntimeException error) {
                LicenseException told = error instanceof LicenseException ? (LicenseException) error
                    : new LicenseException(error, 0);
                boolean refused = !told.code.equals("unreachable");
                if (told.code.equals("session_not_found") || text(told.answer, "end_reason").equals("timeout")) {
                    session = null; // the machine slept: starts another session
                    wait = 0;
                } else if (refused || lease != null && validLease() == null) {
                    session = lease = null; // ended by an administrator, taken over, suspended, in use elsewhere, ...
                    if (stop.getCount() == 0) return;
                    stop.countDown();
                    stopped.accept(told.getMessage());
                } else { // a session goes on without the network, and while the server is busy
                    wait = Math.min(Math.max(told.after, pause), interval);
                    pause = Math.min(1.5 * pause, interval / 2);
                }
            }
        }
    }

    private boolean stopsWithin(double seconds) {
        return orElse(true, () -> stop.await((long) (1000 * seconds), TimeUnit.MILLISECONDS));
    }

    private static double now() {
        return System.nanoTime() / 1e9;
    }

    private static String inLanguage(String english, String german) {
        return Locale.getDefault().getLanguage().equals("de") ? german : english;
    }

    /** The server's response, until a moment. Calls again after a lost connection if `spare` seconds remain then. */
    private static String call(String endpoint, String body, double until, int spare) throws LicenseException {
        while (true) {
            try {
                return attempt(endpoint, body.getBytes(UTF_8), (int) (1000 * Math.max(until - now(), 2)));
            } catch (LicenseException error) {
                if (!error.code.equals("unreachable") || now() + error.after + spare > until) throw error;
                LockSupport.parkNanos((long) (1e9 * error.after));
            }
        }
    }

    private static String attempt(String endpoint, byte[] sent, int timeout) throws LicenseException {
        byte[] random = new byte[32];
        new SecureRandom().nextBytes(random);
        String nonce = Base64.getEncoder().encodeToString(random);
        String path = "/api/license/" + endpoint;
        HttpsURLConnection connection;
        byte[] received;
        int status;
        try {
            connection = (HttpsURLConnection) URI.create(SERVER + path).toURL().openConnection();
            if (!CA_FILE.isEmpty()) connection.setSSLSocketFactory(trust().getSocketFactory());
            connection.setConnectTimeout(timeout);
            connection.setReadTimeout(timeout);
            connection.setInstanceFollowRedirects(false);
            connection.setDoOutput(true);
            Map.of("X-API-Key", API_KEY, "Content-Type", "application/json", "Content-Digest", digest(sent),
                "Signature-Nonce", nonce, "Accept-Language", Locale.getDefault().toLanguageTag(),
                "Connection", "close").forEach(connection::setRequestProperty); // a new connection for each call
            if (endpoint.equals("session/start")) connection.setRequestProperty("Idempotency-Key", START_KEY);
            connection.getOutputStream().write(sent);
            status = connection.getResponseCode();
            try (InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
                received = stream == null ? new byte[0] : stream.readAllBytes();
            }
        } catch (IOException | GeneralSecurityException | RuntimeException error) {
            throw new LicenseException(error, 0);
        }
        if (status == 429 || status == 503) {
            throw new LicenseException(new IOException("busy"), connection.getHeaderFieldInt("Retry-After", 0));
        }
        String signed = "\"@status\": " + status + "\n\"content-digest\": " + digest(received)
            + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + digest(sent)
            + "\n\"@signature-params\": ";
        String input = String.valueOf(connection.getHeaderField("Signature-Input"));
        if (!isSigned(signed, nonce, input, String.valueOf(connection.getHeaderField("Signature")))) {
            throw new LicenseException(new IOException("The response is not signed by the license server."), 0);
        }
        String answer = new String(received, UTF_8);
        if (status < 400) return answer;
        String code = text(answer, "code");
        if (code.matches("(license|version|device)_.*")) save("lease", ""); // nor may it work without the server
        String message = text(answer, "detail") + " " + text(answer, "download_url"); // of a version that may run
        throw new LicenseException(code, message.trim(), null, 0, answer);
    }

    private static Path caFile() {
        Path program = orElse(Path.of("."), () -> // the jar, or the folder of the classes
            Path.of(License.class.getProtectionDomain().getCodeSource().getLocation().toURI()).toRealPath());
        return (Files.isDirectory(program) ? program : program.getParent()).resolve(CA_FILE);
    }

    private static SSLContext trust() throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream stream = Files.newInputStream(caFile())) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(stream));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }

    private static double between(double low, double high) {
        return ThreadLocalRandom.current().nextDouble(low, high);
    }

    /** What the function returns, or the default if it fails. */
    private static <T> T orElse(T value, Callable<T> function) {
        try { return function.call(); } catch (Exception error) { return value; }
    }

    private static byte[] hash(String algorithm, byte[]... parts) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        for (byte[] part : parts) bytes.writeBytes(part);
        return orElse(null, () -> MessageDigest.getInstance(algorithm).digest(bytes.toByteArray()));
    }

    private static String digest(byte[] body) {
        return "sha-256=:" + Base64.getEncoder().encodeToString(hash("SHA-256", body)) + ":";
    }

    /** Whether the server has signed exactly this response to exactly this request (RFC 9421). */
    private static boolean isSigned(String signed, String nonce, String input, String signature) {
        String covered = "(\"@status\" \"content-digest\" \"@method\";req \"@path\";req \"content-digest\";req)";
        String form = ";created=\\d+;keyid=\"(\\w+)\";alg=\"ed25519\";nonce=\"";
        Matcher parameters = Pattern.compile("sig1=(" + Pattern.quote(covered) + form + Pattern.quote(nonce) + "\")")
            .matcher(input);
        Matcher value = Pattern.compile("sig1=:([A-Za-z0-9+/]{86}==):").matcher(signature);
        return parameters.matches() && value.matches()
            && verify(parameters.group(2), signed + parameters.group(1), Base64.getDecoder().decode(value.group(1)));
    }

    // Ed25519 (RFC 8032), which Java has since version 15. Not in constant time: nothing here is secret.
    private static final BigInteger P = BigInteger.TWO.pow(255).subtract(BigInteger.valueOf(19));
    private static final BigInteger D =
        BigInteger.valueOf(-121665).multiply(BigInteger.valueOf(121666).modInverse(P)).mod(P);
    private static final BigInteger ORDER =
        BigInteger.TWO.pow(252).add(new BigInteger("27742317777372353535851937790883648493"));

    private static BigInteger[] add(BigInteger[] a, BigInteger[] b) {
        BigInteger t = D.multiply(a[0]).multiply(b[0]).mod(P).multiply(a[1]).multiply(b[1]);
        BigInteger x = a[0].multiply(b[1]).add(a[1].multiply(b[0]));
        BigInteger y = a[1].multiply(b[1]).add(a[0].multiply(b[0]));
        return new BigInteger[] {x.multiply(BigInteger.ONE.add(t).modInverse(P)).mod(P),
            y.multiply(BigInteger.ONE.subtract(t).modInverse(P)).mod(P)};
    }

    private static BigInteger[] times(BigInteger n, BigInteger[] point) {
        if (n.signum() == 0) return new BigInteger[] {BigInteger.ZERO, BigInteger.ONE};
        return n.testBit(0) ? add(times(n.clearBit(0), point), point) : times(n.shiftRight(1), add(point, point));
    }

    private static BigInteger[] point(BigInteger y, boolean odd) {
        BigInteger square = y.multiply(y);
        square = square.subtract(BigInteger.ONE).multiply(D.multiply(square).add(BigInteger.ONE).modInverse(P)).mod(P);
        BigInteger x = square.modPow(P.add(BigInteger.valueOf(3)).shiftRight(3), P);
        if (x.multiply(x).subtract(square).mod(P).signum() != 0) {
            x = x.multiply(BigInteger.TWO.modPow(P.shiftRight(2), P)).mod(P);
        }
        return new BigInteger[] {x.testBit(0) == odd ? x : P.subtract(x), y};
    }

    /** The number of bytes in little-endian order. */
    private static BigInteger number(byte[] bytes) {
        byte[] reversed = new byte[bytes.length];
        for (int i = 0; i < bytes.length; i++) reversed[i] = bytes[bytes.length - 1 - i];
        return new BigInteger(1, reversed);
    }

    private static boolean verify(String keyId, String message, byte[] signature) {
        if (!PUBLIC_KEYS.containsKey(keyId) || signature.length != 64) return false;
        byte[] key = Base64.getDecoder().decode(PUBLIC_KEYS.get(keyId));
        byte[] r = Arrays.copyOf(signature, 32);
        BigInteger s = number(Arrays.copyOfRange(signature, 32, 64));
        BigInteger h = number(hash("SHA-512", r, key, message.getBytes(UTF_8))).mod(ORDER);
        BigInteger[] negated = point(number(key).clearBit(255), key[31] >= 0);
        BigInteger base = BigInteger.valueOf(4).multiply(BigInteger.valueOf(5).modInverse(P)).mod(P);
        BigInteger[] sum = add(times(s, point(base, false)), times(h, negated));
        BigInteger encoded = sum[0].testBit(0) ? sum[1].setBit(255) : sum[1];
        return s.compareTo(ORDER) < 0 && encoded.equals(number(r));
    }

    /** The lease of the last start, if it is for this license and device, and the clock is within its term. */
    private String validLease() {
        return orElse(null, () -> {
            String[] parts = load("lease").split("\\.");
            Base64.Decoder decoder = Base64.getUrlDecoder();
            String header = new String(decoder.decode(parts[0]), UTF_8);
            String claims = new String(decoder.decode(parts[1]), UTF_8);
            String own = key.toUpperCase(Locale.ROOT).replaceAll("[^0-9A-Z]", "");
            own = own.replace('O', '0').replaceAll("[IL]", "1");
            double now = System.currentTimeMillis() / 1000.0; // nor is it valid if the clock is behind
            boolean valid = text(header, "typ").equals("lease+jwt") && text(claims, "license").equals(own)
                && text(claims, "hardware_hash").equals(DEVICE)
                && Long.parseLong(text(claims, "iat")) - 300 <= now && now < Long.parseLong(text(claims, "exp"))
                && verify(text(header, "kid"), parts[0] + "." + parts[1], decoder.decode(parts[2]));
            return valid ? claims : null;
        });
    }

    private static String json(String... pairs) {
        StringJoiner object = new StringJoiner(",", "{", "}");
        for (int i = 0; i < pairs.length; i += 2) {
            String text = pairs[i + 1].replaceAll("\\p{Cntrl}", " ").replace("\\", "\\\\").replace("\"", "\\\"");
            object.add("\"" + pairs[i] + "\":\"" + text + "\"");
        }
        return object.toString();
    }

    /** A string or a number of a JSON object, "" if it has none. The standard library has no parser. */
    private static String text(String object, String name) {
        String member = "(?<!\\\\)\"" + name + "\":\\s*(?:\"((?:[^\"\\\\]|\\\\.)*+)\"|(-?\\d+))";
        Matcher found = Pattern.compile(member).matcher(object);
        if (!found.find()) return "";
        if (found.group(2) != null) return found.group(2);
        return Pattern.compile("\\\\(u([0-9a-fA-F]{4})|.)").matcher(found.group(1)).replaceAll(escape ->
            Matcher.quoteReplacement(escape.group(2) != null ? "" + (char) Integer.parseInt(escape.group(2), 16)
                : escape.group(1).equals("n") ? "\n" : escape.group(1)));
    }

    private static List<String> words(String object, String name) {
        Matcher list = Pattern.compile("(?<!\\\\)\"" + name + "\":\\s*\\[([^\\]]*)]").matcher(object);
        Matcher word = Pattern.compile("[^\",\\s]+").matcher(list.find() ? list.group(1) : "");
        return word.results().map(MatchResult::group).collect(Collectors.toList());
    }

    /** A file in the user's folder for application data; the program's own folder may be read-only. */
    private static Path dataFile(String name) throws IOException {
        boolean windows = File.separatorChar == '\\';
        boolean mac = Files.exists(Path.of("/System/Library"));
        String home = Objects.requireNonNullElse(System.getenv("HOME"), System.getProperty("user.home"));
        String local = home + (mac ? "/Library/Application Support" : "/.local/share");
        String variable = windows ? "LOCALAPPDATA" : mac ? "" : "XDG_DATA_HOME";
        // Not every system's Java can write other letters in a path.
        String ascii = PRODUCT.replaceAll("[^A-Za-z0-9_-]+", "-").replaceAll("^-+|-+$", "");
        String hash = PRODUCT.matches("\\p{ASCII}*") ? "" : "-" + Integer.toHexString(PRODUCT.hashCode());
        Path base = Path.of(Objects.requireNonNullElse(System.getenv(variable), local));
        Path folder = Files.createDirectories(base.resolve(ascii + hash));
        // The key is none of other users' business. Windows has other means, and its folder is the user's alone.
        orElse(null, () -> Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx------")));
        return folder.resolve(name);
    }

    private static String load(String name) {
        return orElse("", () -> Files.readString(dataFile(name)));
    }

    private static String save(String name, String text) {
        orElse(null, () -> Files.writeString(dataFile(name), text)); // if that fails, the program works all the same
        return text;
    }

    /**
     * The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The file
     * stays locked until the program ends: a second copy that runs at the same time uses a key of its own.
     */
    private static String ownStartKey() {
        String random = UUID.randomUUID().toString();
        return orElse(random, () -> {
            startFile = FileChannel.open(dataFile("start"), StandardOpenOption.CREATE, StandardOpenOption.READ,
                StandardOpenOption.WRITE);
            ByteBuffer stored = ByteBuffer.allocate(36);
            if (startFile.tryLock() == null) return random;
            if (startFile.read(stored) == 36) return new String(stored.array(), UTF_8);
            startFile.write(ByteBuffer.wrap(random.getBytes(UTF_8)), 0);
            return random;
        });
    }

    /** The system's id of this device, else a random one that is saved; hashed, so that no other product can use it. */
    private static String fingerprint() {
        String system = System.getProperty("os.name");
        String id = orElse("", () -> {
            if (system.startsWith("Windows")) {
                return output("REG_SZ\\s+(\\S+)", "reg", "query", "HKLM\\SOFTWARE\\Microsoft\\Cryptography", "/v",
                    "MachineGuid", "/reg:64");
            } else if (system.startsWith("Mac")) {
                return output("IOPlatformUUID\" = \"(.+)\"", "/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice");
            }
            return first("^([0-9a-f]{32})\n?$", Files.readString(Path.of("/etc/machine-id")));
        });
        if (id.isEmpty()) id = load("device");
        if (id.isEmpty()) id = save("device", UUID.randomUUID().toString());
        return String.format("%064x", new BigInteger(1, hash("SHA-256", (PRODUCT + "\n" + id).getBytes(UTF_8))));
    }

    private static String output(String form, String... command) throws IOException {
        return first(form, new String(new ProcessBuilder(command).start().getInputStream().readAllBytes(), UTF_8));
    }

    private static String first(String form, String text) {
        Matcher found = Pattern.compile(form).matcher(text);
        return found.find() ? found.group(1) : "";
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        UnaryOperator<String> ask = problem -> {
            System.out.println(problem + "\nLicense key (empty for a trial): ");
            return orElse(null, input::readLine); // null at the end of the input: canceled
        };
        License license = new License(ask, License::exit);
        try {
            license.start();
            String how = license.lease == null ? "Running." : "Running without the server.";
            System.out.println(how + " Press Enter to end.");
            input.readLine(); // your program works here
        } catch (LicenseException error) {
            exit(error.getMessage());
        }
        System.exit(0); // ends the session
    }

    private static void exit(String message) {
        System.err.println(message);
        System.exit(1);
    }
}
