import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Heartbeats over one java.net.http.HttpClient. Arguments: see tests/black_box/libraries.rs. */
public class Beat {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = System.getenv();
        KeyStore known = KeyStore.getInstance(KeyStore.getDefaultType());
        known.load(null);
        try (FileInputStream file = new FileInputStream(given.get("CA_FILE"))) {
            known.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(known);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(context).build();
        HttpRequest request = HttpRequest.newBuilder()
            .uri(URI.create("https://" + given.get("AUTHORITY") + "/api/license/session/heartbeat"))
            .header("X-API-Key", given.get("API_KEY"))
            .header("Content-Type", "application/json")
            .timeout(Duration.ofSeconds(30))
            .POST(HttpRequest.BodyPublishers.ofString(given.get("BODY")))
            .build();
        long interval = Math.round(Double.parseDouble(given.get("INTERVAL")) * 1000);
        int beats = Integer.parseInt(given.get("BEATS"));
        for (int number = 0; number < beats; number++) {
            if (number > 0) {
                Thread.sleep(interval);
            }
            try {
                System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
            } catch (Exception fault) {
                System.out.println(fault.getClass().getSimpleName());
            }
        }
    }
}
