import java.io.*;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.CertificateFactory;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

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

    /** The message is for the user. The code never changes; "unreachable": no signed response. */
    @SuppressWarnings("serial")
    public static final class LicenseException extends Exception {
        public final String code;
        final String endReason;
        final String field;
        final double after; // seconds to wait, if the server named them

        LicenseException(String message, String code, double after, String answer) {
            super(message);
            this.code = code;
            this.after = after;
            this.endReason = text(answer, "end_reason");
            this.field = text(answer, "field");
        }
    }

    private final UnaryOperator<String> ask;
    private final Consumer<String> stopped;
    private final CountDownLatch stop = new CountDownLatch(1);
    private final Thread thread = new Thread(this::keepAlive, "license");
    private final String startKey = ownStartKey();
    private FileChannel startFile;
    private String key = "";
    private volatile String session; // the token
    private volatile String lease;
    private double interval = 30; // seconds between heartbeats
    private volatile List<String> features = List.of();

    /**
     * @param ask gets the license key from the user, "" for a trial; its argument says why the last key was refused
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

    /** Starts a session; without the server, uses the lease of the last one. */
    public void start() throws LicenseException, InterruptedException {
        String problem = "";
        long asked = 0;
        while (session == null && lease == null) {
            if (key.isEmpty()) key = load("key");
            if (key.isEmpty()) key = ask.apply(problem).trim();
            if (asked == 0) asked = System.nanoTime();
            try {
                startSession();
            } catch (LicenseException error) {
                long wait = (long) (1000 * Math.max(error.after, ThreadLocalRandom.current().nextDouble(0.5, 1)));
                if (error.code.equals("license_not_found") || "license_key".equals(error.field)) {
                    problem = error.getMessage(); // mistyped: asks again
                    key = save("key", "");
                    asked = 0;
                } else if (!error.code.equals("unreachable")) {
                    throw error;
                } else if (System.nanoTime() - asked + wait * 1_000_000 < 4_000_000_000L) {
                    Thread.sleep(wait);
                } else {
                    lease = validLease();
                    if (lease == null) throw error;
                    features = words(lease, "features");
                }
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
            if (running) thread.join(5000); // it may be starting a session, which must be ended too
            if (session != null) call("session/end", json("session_token", session), null);
        } catch (LicenseException | InterruptedException error) {
            // The session times out by itself.
        }
        session = null;
    }

    private void startSession() throws LicenseException {
        String hash = fingerprint();
        if (key.isEmpty()) { // each device gets one trial, and always the same one
            String trial = json("machine_id", machineName(), "hardware_hash", hash, "version", VERSION);
            key = text(call("trial", trial, null), "license_key");
        }
        String device =
            json("license_key", key, "machine_id", machineName(), "hardware_hash", hash, "version", VERSION);
        call("activate", device, null); // changes nothing if this device has a slot already
        String answer = call("session/start", device, startKey);
        session = text(answer, "session_token");
        lease = null;
        interval = Double.parseDouble(text(answer, "heartbeat_interval"));
        features = words(answer, "features");
        save("key", key);
        save("lease", Objects.requireNonNullElse(text(answer, "lease"), "")); // null if offline use is not allowed
    }

    private void keepAlive() {
        double wait = session == null ? 1 : interval;
        double pause = 0.5;
        while (!stopsWithin(wait * ThreadLocalRandom.current().nextDouble(0.8, 1))) { // not all at one moment
            try {
                if (session == null) {
                    startSession();
                } else {
                    String answer = call("session/heartbeat", json("license_key", key, "session_token", session), null);
                    interval = Double.parseDouble(text(answer, "heartbeat_interval"));
                }
                wait = interval;
                pause = 0.5;
            } catch (LicenseException | RuntimeException error) {
                LicenseException told = error instanceof LicenseException ? (LicenseException) error
                    : new LicenseException(error.toString(), "unreachable", 0, "");
                if (told.code.equals("session_not_found") || "timeout".equals(told.endReason)) {
                    session = null; // the machine slept: starts another session
                    wait = 0;
                } else if (!told.code.equals("unreachable")) { // ended, taken over, suspended, in use elsewhere, ...
                    session = null;
                    stop.countDown();
                    stopped.accept(told.getMessage());
                    return;
                } else if (lease != null && validLease() == null) {
                    stop.countDown();
                    stopped.accept("The license server could not be reached before the offline lease expired.");
                    return;
                } else { // a session goes on without the network, and while the server is busy
                    wait = Math.max(told.after, pause);
                    pause = Math.min(2 * pause, interval / 2);
                }
            }
        }
    }

    private boolean stopsWithin(double seconds) {
        try {
            return stop.await((long) (1000 * seconds), TimeUnit.MILLISECONDS);
        } catch (InterruptedException error) {
            return true;
        }
    }

    /** The server's response. Each call has a connection of its own. */
    private static String call(String endpoint, String body, String idempotencyKey) throws LicenseException {
        byte[] sent = body.getBytes(StandardCharsets.UTF_8);
        byte[] random = new byte[32];
        new SecureRandom().nextBytes(random);
        String nonce = Base64.getEncoder().encodeToString(random);
        String path = "/api/license/" + endpoint;
        HttpsURLConnection connection;
        byte[] received;
        int status;
        for (int attempt = 1; ; attempt++) { // the network may lose the first
            try {
                connection = (HttpsURLConnection) URI.create(SERVER + path).toURL().openConnection();
                if (!CA_FILE.isEmpty()) connection.setSSLSocketFactory(trust().getSocketFactory());
                connection.setConnectTimeout(10_000);
                connection.setReadTimeout(10_000);
                connection.setInstanceFollowRedirects(false);
                connection.setDoOutput(true);
                Map.of("X-API-Key", API_KEY, "Content-Type", "application/json", "Content-Digest", digest(sent),
                    "Signature-Nonce", nonce, "Accept-Language", Locale.getDefault().toLanguageTag(),
                    "Connection", "close").forEach(connection::setRequestProperty);
                if (idempotencyKey != null) connection.setRequestProperty("Idempotency-Key", idempotencyKey);
                connection.getOutputStream().write(sent);
                status = connection.getResponseCode();
                try (InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
                    received = stream == null ? new byte[0] : stream.readAllBytes();
                }
                break;
            } catch (IOException | GeneralSecurityException | RuntimeException error) {
                String message = "The license server cannot be reached: " + error;
                if (attempt == 2) throw new LicenseException(message, "unreachable", 0, "");
            }
        }
        if (status == 429 || status == 503) {
            double after = connection.getHeaderFieldInt("Retry-After", 0);
            throw new LicenseException("The license server is busy (" + status + ").", "unreachable", after, "");
        }
        String base = "\"@status\": " + status + "\n\"content-digest\": " + digest(received)
            + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + digest(sent)
            + "\n\"@signature-params\": ";
        String input = connection.getHeaderField("Signature-Input");
        if (!isSigned(base, nonce, input, connection.getHeaderField("Signature"))) {
            String message = "The license server cannot be reached: this response is not signed by it.";
            throw new LicenseException(message, "unreachable", 0, "");
        }
        String answer = new String(received, StandardCharsets.UTF_8);
        if (status < 400) return answer;
        String code = text(answer, "code");
        String url = text(answer, "download_url"); // of a version that may run
        if (code.matches("(license|version|device)_.*")) save("lease", ""); // nor may it work without the server
        throw new LicenseException(text(answer, "detail") + (url == null ? "" : " " + url), code, 0, answer);
    }

    private static SSLContext trust() throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream file = Files.newInputStream(beside(CA_FILE))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }

    private static String digest(byte[] body) {
        return "sha-256=:" + Base64.getEncoder().encodeToString(hash("SHA-256", body)) + ":";
    }

    private static byte[] hash(String algorithm, byte[]... parts) {
        try {
            MessageDigest digest = MessageDigest.getInstance(algorithm);
            for (byte[] part : parts) digest.update(part);
            return digest.digest();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java has SHA-256 and SHA-512
        }
    }

    /** Whether the server has signed exactly this response to exactly this request; `base` is what RFC 9421 covers. */
    private static boolean isSigned(String base, String nonce, String input, String signature) {
        String covered = "(\"@status\" \"content-digest\" \"@method\";req \"@path\";req \"content-digest\";req)";
        Pattern form = Pattern.compile("sig1=(" + Pattern.quote(covered)
            + ";created=\\d+;keyid=\"(\\w+)\";alg=\"ed25519\";nonce=\"" + Pattern.quote(nonce) + "\")");
        Matcher parameters = form.matcher(Objects.requireNonNullElse(input, ""));
        Pattern bytes = Pattern.compile("sig1=:([A-Za-z0-9+/]{86}==):");
        Matcher value = bytes.matcher(Objects.requireNonNullElse(signature, ""));
        return parameters.matches() && value.matches()
            && verify(parameters.group(2), base + parameters.group(1), Base64.getDecoder().decode(value.group(1)));
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

    private static BigInteger[] times(BigInteger factor, BigInteger[] point) {
        BigInteger[] total = {BigInteger.ZERO, BigInteger.ONE};
        for (int bit = factor.bitLength() - 1; bit >= 0; bit--) {
            total = add(total, total);
            if (factor.testBit(bit)) total = add(total, point);
        }
        return total;
    }

    private static BigInteger[] point(BigInteger y, boolean odd) {
        BigInteger square = y.multiply(y);
        square = square.subtract(BigInteger.ONE).multiply(D.multiply(square).add(BigInteger.ONE).modInverse(P)).mod(P);
        BigInteger x = square.modPow(P.add(BigInteger.valueOf(3)).shiftRight(3), P);
        if (!x.multiply(x).subtract(square).mod(P).equals(BigInteger.ZERO)) {
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
        BigInteger h = number(hash("SHA-512", r, key, message.getBytes(StandardCharsets.UTF_8))).mod(ORDER);
        BigInteger[] a = point(number(key).clearBit(255), key[31] < 0);
        BigInteger base = BigInteger.valueOf(4).multiply(BigInteger.valueOf(5).modInverse(P)).mod(P);
        BigInteger[] sum = add(times(s, point(base, false)), times(h, new BigInteger[] {P.subtract(a[0]), a[1]}));
        BigInteger encoded = sum[0].testBit(0) ? sum[1].setBit(255) : sum[1];
        return s.compareTo(ORDER) < 0 && encoded.equals(number(r));
    }

    /** The lease of the last start, if it is for this license and device, and the clock is within its term. */
    private String validLease() {
        try {
            String[] parts = load("lease").split("\\.");
            Base64.Decoder decoder = Base64.getUrlDecoder();
            String header = new String(decoder.decode(parts[0]), StandardCharsets.UTF_8);
            String claims = new String(decoder.decode(parts[1]), StandardCharsets.UTF_8);
            String own = key.toUpperCase(Locale.ROOT).replaceAll("[^0-9A-Z]", "");
            own = own.replace('O', '0').replaceAll("[IL]", "1");
            double now = System.currentTimeMillis() / 1000.0; // nor is it valid if the clock is behind
            boolean valid = "lease+jwt".equals(text(header, "typ")) && own.equals(text(claims, "license"))
                && fingerprint().equals(text(claims, "hardware_hash"))
                && Long.parseLong(text(claims, "iat")) - 300 <= now && now < Long.parseLong(text(claims, "exp"))
                && verify(text(header, "kid"), parts[0] + "." + parts[1], decoder.decode(parts[2]));
            return valid ? claims : null;
        } catch (RuntimeException error) {
            return null;
        }
    }

    private static String json(String... pairs) {
        StringBuilder object = new StringBuilder("{");
        for (int i = 0; i < pairs.length; i++) {
            String text = pairs[i].replaceAll("\\p{Cntrl}", " ").replace("\\", "\\\\").replace("\"", "\\\"");
            object.append(i == 0 ? "\"" : i % 2 == 0 ? ",\"" : ":\"").append(text).append('"');
        }
        return object.append('}').toString();
    }

    /** A string or a number of a JSON object, null if it has none. The standard library has no parser. */
    private static String text(String object, String name) {
        String member = "(?<!\\\\)\"" + name + "\":\\s*(?:\"((?:[^\"\\\\]|\\\\.)*)\"|(-?\\d+))";
        Matcher found = Pattern.compile(member).matcher(object);
        if (!found.find()) return null;
        if (found.group(2) != null) return found.group(2);
        return Pattern.compile("\\\\(u([0-9a-fA-F]{4})|.)").matcher(found.group(1)).replaceAll(escape ->
            Matcher.quoteReplacement(escape.group(2) != null ? "" + (char) Integer.parseInt(escape.group(2), 16)
                : escape.group(1).equals("n") ? "\n" : escape.group(1)));
    }

    private static List<String> words(String object, String name) {
        Matcher list = Pattern.compile("(?<!\\\\)\"" + name + "\":\\s*\\[([^\\]]*)]").matcher(object);
        return list.find() ? List.of(list.group(1).replaceAll("[\"\\s]", "").split(",")) : List.of();
    }

    private static Path beside(String name) {
        try { // the jar, or the folder of the classes
            Path program = Path.of(License.class.getProtectionDomain().getCodeSource().getLocation().toURI());
            return (Files.isDirectory(program) ? program : program.getParent()).resolve(name);
        } catch (java.net.URISyntaxException | RuntimeException error) {
            return Path.of(name);
        }
    }

    /** A file in the user's folder for application data; the program's own folder may be read-only. */
    private static Path dataFile(String name) throws IOException {
        String system = System.getProperty("os.name");
        String home = Objects.requireNonNullElse(System.getenv("HOME"), System.getProperty("user.home"));
        boolean mac = system.startsWith("Mac");
        String variable = system.startsWith("Windows") ? "LOCALAPPDATA" : mac ? "" : "XDG_DATA_HOME";
        String local = home + (mac ? "/Library/Application Support" : "/.local/share");
        // Not every system's Java can write other letters in a path.
        String ascii = PRODUCT.replaceAll("[^A-Za-z0-9_-]+", "-").replaceAll("^-+|-+$", "");
        String hash = PRODUCT.matches("\\p{ASCII}*") ? "" : "-" + Integer.toHexString(PRODUCT.hashCode());
        Path base = Path.of(Objects.requireNonNullElse(System.getenv(variable), local));
        return Files.createDirectories(base.resolve(ascii.isEmpty() ? "program" + hash : ascii + hash)).resolve(name);
    }

    private static String load(String name) {
        try {
            return Files.readString(dataFile(name));
        } catch (IOException | RuntimeException error) {
            return "";
        }
    }

    private static String save(String name, String text) {
        try {
            Files.writeString(dataFile(name), text);
        } catch (IOException | RuntimeException error) {
            // The program works all the same.
        }
        return text;
    }

    /**
     * The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The file
     * stays locked until the program ends: a second copy that runs at the same time uses a key of its own.
     */
    private String ownStartKey() {
        String random = UUID.randomUUID().toString();
        try {
            startFile = FileChannel.open(dataFile("start"), StandardOpenOption.CREATE, StandardOpenOption.READ,
                StandardOpenOption.WRITE);
            if (startFile.tryLock() == null) return random;
            ByteBuffer stored = ByteBuffer.allocate(36);
            if (startFile.read(stored) == 36) return new String(stored.array(), StandardCharsets.US_ASCII);
            startFile.write(ByteBuffer.wrap(random.getBytes(StandardCharsets.US_ASCII)), 0);
        } catch (IOException | RuntimeException error) {
            // Without the file, a crash costs one timeout.
        }
        return random;
    }

    private static String machineName() {
        try {
            return InetAddress.getLocalHost().getHostName();
        } catch (IOException error) {
            return "unknown";
        }
    }

    /** The system's id of this device, else a random one that is saved; hashed, so that no other product can use it. */
    private static String fingerprint() {
        String machine;
        try {
            String system = System.getProperty("os.name");
            if (system.startsWith("Windows")) {
                machine = output("REG_SZ\\s+(\\S+)", "reg", "query", "HKLM\\SOFTWARE\\Microsoft\\Cryptography", "/v",
                    "MachineGuid", "/reg:64");
            } else if (system.startsWith("Mac")) {
                machine = output("\"IOPlatformUUID\" = \"(.+)\"", "/usr/sbin/ioreg", "-rd1", "-c",
                    "IOPlatformExpertDevice");
            } else {
                machine = first("^([0-9a-f]{32})\n?$", Files.readString(Path.of("/etc/machine-id")));
            }
        } catch (IOException | RuntimeException error) {
            machine = load("device").isEmpty() ? save("device", UUID.randomUUID().toString()) : load("device");
        }
        byte[] hash = hash("SHA-256", (PRODUCT + "\n" + machine).getBytes(StandardCharsets.UTF_8));
        return String.format("%064x", new BigInteger(1, hash));
    }

    private static String output(String form, String... command) throws IOException {
        return first(form, new String(new ProcessBuilder(command).start().getInputStream().readAllBytes()));
    }

    private static String first(String form, String text) {
        Matcher found = Pattern.compile(form).matcher(text);
        if (!found.find()) throw new IllegalStateException("no machine id");
        return found.group(1);
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        UnaryOperator<String> ask = problem -> {
            System.out.print(problem + "\nLicense key (empty for a trial): ");
            System.out.flush();
            try {
                return Objects.requireNonNullElse(input.readLine(), "");
            } catch (IOException error) {
                return "";
            }
        };
        License license = new License(ask, License::exit);
        try {
            license.start();
            System.out.println(license.lease == null ? "Running. Press Enter to end."
                : "Running without the server. Press Enter to end.");
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
