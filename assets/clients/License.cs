using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Net.Security;
using System.Numerics;
using System.Runtime.Serialization.Json;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Xml;
using System.Xml.Linq;

/// <summary>
/// Runs a program under a license: takes a slot for this device, keeps a session alive while it works, ends it.
/// Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
/// session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
/// .NET 6 or newer, without packages; .NET Framework 4.8 with references to System.Net.Http, System.Numerics,
/// System.Runtime.Serialization, System.Xml and System.Xml.Linq. LicenseExample at the end shows how to use it.
/// </summary>
public sealed class License : IDisposable
{
    const string Server = "https://licenses.example.org";
    const string ApiKey = "YOUR-API-KEY";
    const string Product = "Example product"; // part of each fingerprint: never change it once customers use it
    const string Version = "1.0.0"; // of your program
    const string CaFile = "ca.pem"; // the certificate to trust, beside the program; "" to trust those of the system
    static readonly Dictionary<string, string> PublicKeys = new Dictionary<string, string> // for a key rotation: two
    {
        { "CURRENT-KEY-ID", "CURRENT-PUBLIC-KEY" },
        { "NEXT-KEY-ID", "NEXT-PUBLIC-KEY" },
    };
    static readonly HttpClient Http = new HttpClient(Handler()) { Timeout = TimeSpan.FromSeconds(10) };

    readonly Func<string, string> ask;
    readonly Action<string> stopped;
    readonly ManualResetEvent stop = new ManualResetEvent(false);
    readonly Random random = new Random();
    readonly Thread thread;
    readonly string startKey;
    FileStream startFile;
    string key = "";
    double interval = 30; // seconds between heartbeats
    volatile string session; // the token
    volatile XElement lease;

    /// <param name="ask">Gets the license key, "" for a trial, from the user; is told why the last was refused.</param>
    /// <param name="stopped">Called on a background thread, with a message, if the program has to stop.</param>
    public License(Func<string, string> ask, Action<string> stopped)
    {
        this.ask = ask;
        this.stopped = stopped;
        startKey = OwnStartKey();
        thread = new Thread(KeepAlive) { IsBackground = true };
    }

    /// <summary>What was sold with the license.</summary>
    public IReadOnlyList<string> Features { get; private set; } = new string[0];

    /// <summary>Whether it runs on a lease, since the server could not be reached.</summary>
    public bool IsOffline => lease != null;

    /// <summary>Starts a session; without the server, uses the lease of the last one. Takes seconds: in a program with
    /// windows, call it by Task.Run.</summary>
    /// <exception cref="LicenseException">The program may not run.</exception>
    public void Start()
    {
        var problem = "";
        DateTime? until = null;
        while (session == null && lease == null)
        {
            if (key == "") key = Load("key");
            if (key == "") key = (ask(problem) ?? "").Trim();
            until = until ?? DateTime.UtcNow.AddSeconds(4);
            try
            {
                StartSession();
            }
            catch (LicenseException error)
            {
                var wait = TimeSpan.FromSeconds(Math.Max(error.After, 0.5 + random.NextDouble() / 2));
                if (error.Code == "license_not_found" || error.Field == "license_key")
                {
                    problem = error.Message; // mistyped: asks again
                    key = Save("key", "");
                    until = null;
                }
                else if (error.Code == "unreachable" && DateTime.UtcNow + wait < until)
                {
                    Thread.Sleep(wait);
                }
                else
                {
                    lease = error.Code == "unreachable" ? ValidLease() : null;
                    if (lease == null) throw;
                    Features = Words(lease.Element("features"));
                }
            }
        }
        AppDomain.CurrentDomain.ProcessExit += (sender, arguments) => Dispose();
        thread.Start();
    }

    /// <summary>Ends the session, which frees the license at once. Called at exit too.</summary>
    public void Dispose()
    {
        var running = !stop.WaitOne(0);
        stop.Set();
        if (running && thread.IsAlive) thread.Join(5000); // it may be starting a session, which must be ended too
        var token = Interlocked.Exchange(ref session, null);
        try
        {
            if (token != null) Call("session/end", new Dictionary<string, string> { { "session_token", token } });
        }
        catch (LicenseException)
        {
            // The session times out by itself.
        }
    }

    void StartSession()
    {
        var device = new Dictionary<string, string>
        {
            { "machine_id", Environment.MachineName }, { "hardware_hash", Fingerprint() }, { "version", Version },
        };
        if (key == "") key = Call("trial", device).Element("license_key").Value; // each device always gets the same one
        device["license_key"] = key;
        Call("activate", device); // changes nothing if this device has a slot already
        var answer = Call("session/start", device, startKey);
        session = answer.Element("session_token").Value;
        lease = null;
        interval = (double)answer.Element("heartbeat_interval");
        Features = Words(answer.Element("license").Element("features"));
        Save("key", key);
        Save("lease", answer.Element("lease").Value); // empty if the shop does not allow work without the server
    }

    void KeepAlive()
    {
        double wait = session == null ? 1 : interval, pause = 0.5;
        while (!stop.WaitOne(TimeSpan.FromSeconds(wait * (0.8 + 0.2 * random.NextDouble())))) // not all at one moment
        {
            try
            {
                if (session == null) StartSession();
                else
                {
                    var beat = new Dictionary<string, string> { { "license_key", key }, { "session_token", session } };
                    interval = (double)Call("session/heartbeat", beat).Element("heartbeat_interval");
                }
                wait = interval;
                pause = 0.5;
            }
            catch (Exception error) // nothing may leave this thread
            {
                var told = error as LicenseException ?? new LicenseException(error.Message);
                if (told.Code == "session_not_found" || told.EndReason == "timeout")
                {
                    session = null; // the machine slept: starts another session
                    wait = 0;
                }
                else if (told.Code != "unreachable") // ended, taken over, suspended, in use on another device, ...
                {
                    session = null;
                    stop.Set();
                    stopped(told.Message);
                    return;
                }
                else if (lease != null && ValidLease() == null)
                {
                    stop.Set();
                    stopped("The license server could not be reached before the offline lease expired.");
                    return;
                }
                else // a session goes on without the network, and while the server is busy
                {
                    wait = Math.Max(told.After, pause);
                    pause = Math.Min(2 * pause, interval / 2);
                }
            }
        }
    }

    /// <summary>The server's response. Each call has a connection of its own.</summary>
    static XElement Call(string endpoint, Dictionary<string, string> body, string idempotencyKey = null)
    {
        var path = "/api/license/" + endpoint;
        var members = body.Select(member => Quote(member.Key) + ":" + Quote(member.Value));
        var sent = Encoding.UTF8.GetBytes("{" + string.Join(",", members) + "}");
        var random = new byte[32];
        using (var generator = RandomNumberGenerator.Create()) generator.GetBytes(random);
        var nonce = Convert.ToBase64String(random);
        HttpResponseMessage response;
        byte[] received;
        for (var attempt = 1; ; attempt++) // the network may lose the first
        {
            try
            {
                var request = new HttpRequestMessage(HttpMethod.Post, Server + path);
                request.Content = new ByteArrayContent(sent);
                request.Content.Headers.Add("Content-Type", "application/json");
                var language = CultureInfo.CurrentUICulture.Name;
                foreach (var header in new[]
                {
                    new[] { "X-API-Key", ApiKey }, new[] { "Content-Digest", Digest(sent) },
                    new[] { "Signature-Nonce", nonce }, new[] { "Idempotency-Key", idempotencyKey },
                    new[] { "Accept-Language", language == "" ? "*" : language }, new[] { "Connection", "close" },
                })
                {
                    if (header[1] != null) request.Headers.TryAddWithoutValidation(header[0], header[1]);
                }
                response = Http.SendAsync(request).GetAwaiter().GetResult();
                received = response.Content.ReadAsByteArrayAsync().GetAwaiter().GetResult();
                break;
            }
            catch (Exception error)
            {
                var cause = error.GetBaseException().Message;
                if (attempt == 2) throw new LicenseException("The license server cannot be reached: " + cause);
            }
        }
        var status = (int)response.StatusCode;
        Func<string, string> field = name => response.Headers.Concat(response.Content.Headers)
            .Where(header => header.Key.Equals(name, StringComparison.OrdinalIgnoreCase))
            .SelectMany(header => header.Value).FirstOrDefault() ?? "";
        if (status == 429 || status == 503)
        {
            double.TryParse(field("Retry-After"), out var after);
            throw new LicenseException("The license server is busy (" + status + ").", after: after);
        }
        var signed = "\"@status\": " + status + "\n\"content-digest\": " + Digest(received)
            + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + Digest(sent)
            + "\n\"@signature-params\": ";
        if (!IsSigned(signed, nonce, field("Signature-Input"), field("Signature")))
            throw new LicenseException("The license server cannot be reached: this response is not signed by it.");
        var answer = Parse(received);
        if (status < 400) return answer;
        var code = answer.Element("code").Value;
        if (Regex.IsMatch(code, "^(license|version|device)_")) Save("lease", ""); // nor may it work without the server
        var text = answer.Element("detail").Value + " " + (string)answer.Element("download_url"); // of one that may run
        string reason = (string)answer.Element("end_reason"), wrong = (string)answer.Element("field");
        throw new LicenseException(text.Trim(), code, 0, reason, wrong);
    }

    /// <summary>Accepts a certificate only if the one in CaFile has issued it, whatever the system trusts.</summary>
    static HttpClientHandler Handler()
    {
        var handler = new HttpClientHandler { AllowAutoRedirect = false };
        if (CaFile == "") return handler;
        handler.ServerCertificateCustomValidationCallback = (request, certificate, given, errors) =>
        {
            var authority = new X509Certificate2(Path.Combine(AppContext.BaseDirectory, CaFile));
            var chain = new X509Chain();
            chain.ChainPolicy.ExtraStore.Add(authority);
            chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
            chain.ChainPolicy.VerificationFlags = X509VerificationFlags.AllowUnknownCertificateAuthority;
            return (errors & ~SslPolicyErrors.RemoteCertificateChainErrors) == SslPolicyErrors.None
                && chain.Build(certificate)
                && chain.ChainElements[chain.ChainElements.Count - 1].Certificate.Equals(authority);
        };
        return handler;
    }

    static XElement Parse(byte[] json) =>
        XElement.Load(JsonReaderWriterFactory.CreateJsonReader(json, XmlDictionaryReaderQuotas.Max));

    static string[] Words(XElement list) => list.Elements().Select(word => word.Value).ToArray();

    static string Quote(string text) =>
        "\"" + Regex.Replace(text, "[\\p{Cc}\"\\\\]", found => "\\u" + ((int)found.Value[0]).ToString("x4")) + "\"";

    static string Digest(byte[] body)
    {
        using (var sha = SHA256.Create()) return "sha-256=:" + Convert.ToBase64String(sha.ComputeHash(body)) + ":";
    }

    /// <summary>Whether the server has signed exactly this response to exactly this request (RFC 9421).</summary>
    static bool IsSigned(string signed, string nonce, string input, string signature)
    {
        const string covered = "(\"@status\" \"content-digest\" \"@method\";req \"@path\";req \"content-digest\";req)";
        var parameters = Regex.Match(input, "^sig1=(" + Regex.Escape(covered)
            + ";created=\\d+;keyid=\"(\\w+)\";alg=\"ed25519\";nonce=\"" + Regex.Escape(nonce) + "\")$");
        var value = Regex.Match(signature, "^sig1=:([A-Za-z0-9+/]{86}==):$");
        return parameters.Success && value.Success && Verify(parameters.Groups[2].Value,
            signed + parameters.Groups[1].Value, Convert.FromBase64String(value.Groups[1].Value));
    }

    // Ed25519 (RFC 8032), which .NET lacks. Not in constant time: nothing here is secret.
    static readonly BigInteger P = BigInteger.Pow(2, 255) - 19;
    static readonly BigInteger Order =
        BigInteger.Pow(2, 252) + BigInteger.Parse("27742317777372353535851937790883648493");
    static readonly BigInteger D = Mod(-121665 * Inverse(121666));

    static BigInteger Mod(BigInteger a) => (a % P + P) % P;

    static BigInteger Inverse(BigInteger a) => BigInteger.ModPow(a, P - 2, P);

    static BigInteger[] Add(BigInteger[] a, BigInteger[] b) // extended coordinates (RFC 8032, 5.1.4)
    {
        BigInteger k = Mod((a[1] - a[0]) * (b[1] - b[0])), l = Mod((a[1] + a[0]) * (b[1] + b[0]));
        BigInteger m = Mod(2 * a[3] * b[3] * D), n = Mod(2 * a[2] * b[2]), e = l - k, f = n - m, g = n + m, h = l + k;
        return new[] { Mod(e * f), Mod(g * h), Mod(f * g), Mod(e * h) };
    }

    static BigInteger[] Times(BigInteger factor, BigInteger[] point)
    {
        BigInteger[] total = { 0, 1, 1, 0 };
        for (; factor > 0; factor >>= 1)
        {
            if (!factor.IsEven) total = Add(total, point);
            point = Add(point, point);
        }
        return total;
    }

    static BigInteger[] Point(BigInteger y, bool odd, bool negated)
    {
        var square = Mod((y * y - 1) * Inverse(D * y * y + 1));
        var x = BigInteger.ModPow(square, (P + 3) / 8, P);
        if (Mod(x * x - square) != 0) x = Mod(x * BigInteger.ModPow(2, (P - 1) / 4, P));
        if (x.IsEven == (odd != negated)) x = P - x;
        return new[] { x, y, 1, Mod(x * y) };
    }

    static BigInteger Number(IEnumerable<byte> bytes) => new BigInteger(bytes.Concat(new byte[1]).ToArray());

    static bool Verify(string keyId, string message, byte[] signature)
    {
        if (!PublicKeys.TryGetValue(keyId, out var encoded) || signature.Length != 64) return false;
        byte[] key = Convert.FromBase64String(encoded), hash;
        var s = Number(signature.Skip(32));
        using (var sha = SHA512.Create())
            hash = sha.ComputeHash(signature.Take(32).Concat(key).Concat(Encoding.UTF8.GetBytes(message)).ToArray());
        var a = Point(Number(key) & (BigInteger.Pow(2, 255) - 1), key[31] > 127, negated: true);
        var sum = Add(Times(s, Point(Mod(4 * Inverse(5)), false, false)), Times(Number(hash) % Order, a));
        BigInteger inverse = Inverse(sum[2]), x = Mod(sum[0] * inverse), y = Mod(sum[1] * inverse);
        return s < Order && y + (x.IsEven ? 0 : BigInteger.Pow(2, 255)) == Number(signature.Take(32));
    }

    /// <summary>The lease of the last start, if it is for this license and device, and its term includes now.</summary>
    XElement ValidLease()
    {
        try
        {
            var parts = Load("lease").Split('.');
            Func<string, byte[]> decode = part => Convert.FromBase64String(
                part.Replace('-', '+').Replace('_', '/') + new string('=', (4 - part.Length % 4) % 4));
            XElement header = Parse(decode(parts[0])), claims = Parse(decode(parts[1]));
            var own = Regex.Replace(key.ToUpperInvariant(), "[^0-9A-Z]", "");
            own = Regex.Replace(own.Replace('O', '0'), "[IL]", "1");
            var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds(); // nor is it valid if the clock is behind
            return header.Element("typ").Value == "lease+jwt" && claims.Element("license").Value == own
                && claims.Element("hardware_hash").Value == Fingerprint()
                && (long)claims.Element("iat") - 300 <= now && now < (long)claims.Element("exp")
                && Verify(header.Element("kid").Value, parts[0] + "." + parts[1], decode(parts[2])) ? claims : null;
        }
        catch (Exception)
        {
            return null;
        }
    }

    /// <summary>A file in the user's folder for application data; the program's own folder may be read-only.</summary>
    static string DataFile(string name)
    {
        var product = Regex.Replace(Product, @"[^\w-]+", "-").Trim('-');
        var data = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData);
        var folder = Path.Combine(data, product == "" ? "program" : product);
        Directory.CreateDirectory(folder);
        return Path.Combine(folder, name);
    }

    static string Load(string name)
    {
        try
        {
            return File.ReadAllText(DataFile(name));
        }
        catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
        {
            return "";
        }
    }

    static string Save(string name, string text)
    {
        try
        {
            File.WriteAllText(DataFile(name), text);
        }
        catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
        {
            // The program works all the same.
        }
        return text;
    }

    /// <summary>The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back.
    /// The file stays locked until the program ends: a second copy at the same time uses another key.</summary>
    string OwnStartKey()
    {
        var key = Guid.NewGuid().ToString();
        try
        {
            startFile = new FileStream(DataFile("start"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            // FileShare.None is enough for .NET, but not for Mono; macOS has no other lock.
            if (!Directory.Exists("/System/Library")) startFile.Lock(0, 36);
            var stored = new byte[36];
            if (startFile.Read(stored, 0, 36) == 36) return Encoding.ASCII.GetString(stored);
            startFile.Write(Encoding.ASCII.GetBytes(key), 0, 36);
            startFile.Flush();
        }
        catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
        {
            // Without the file, a crash costs one timeout.
        }
        return key;
    }

    /// <summary>The system's id of this device, else a random one that is saved; hashed, to be useless to other
    /// products.</summary>
    static string Fingerprint()
    {
        string machine = null;
        try
        {
            if (Environment.OSVersion.Platform == PlatformID.Win32NT) machine = WindowsId();
            else if (Directory.Exists("/System/Library"))
            {
                var ioreg = new System.Diagnostics.ProcessStartInfo("/usr/sbin/ioreg", "-rd1 -c IOPlatformExpertDevice")
                {
                    RedirectStandardOutput = true, UseShellExecute = false,
                };
                var output = System.Diagnostics.Process.Start(ioreg).StandardOutput.ReadToEnd();
                machine = Regex.Match(output, "\"IOPlatformUUID\" = \"(.+)\"").Groups[1].Value;
            }
            else machine = Regex.Match(File.ReadAllText("/etc/machine-id"), "^([0-9a-f]{32})\n?$").Groups[1].Value;
        }
        catch (Exception)
        {
            // A random id is as good, as long as its file is there.
        }
        if (string.IsNullOrEmpty(machine)) machine = Load("device");
        if (machine == "") machine = Save("device", Guid.NewGuid().ToString());
        using (var sha = SHA256.Create())
        {
            var hash = sha.ComputeHash(Encoding.UTF8.GetBytes(Product + "\n" + machine));
            return string.Concat(hash.Select(part => part.ToString("x2")));
        }
    }

    static string WindowsId()
    {
        using (var machine = Microsoft.Win32.RegistryKey.OpenBaseKey(Microsoft.Win32.RegistryHive.LocalMachine,
            Microsoft.Win32.RegistryView.Registry64))
        using (var cryptography = machine.OpenSubKey(@"SOFTWARE\Microsoft\Cryptography"))
            return (string)cryptography.GetValue("MachineGuid");
    }
}

/// <summary>The message is for the user. The code never changes; "unreachable": no signed response.</summary>
public sealed class LicenseException : Exception
{
    public readonly string Code, EndReason, Field;
    public readonly double After; // seconds to wait, if the server named them

    public LicenseException(string message, string code = "unreachable", double after = 0, string endReason = null,
        string field = null) : base(message)
    {
        Code = code;
        After = after;
        EndReason = endReason;
        Field = field;
    }
}

/// <summary>How a console program uses it; a program with windows does the same in its first window.</summary>
static class LicenseExample
{
    static int Main()
    {
        Func<string, string> ask = problem =>
        {
            Console.Write(problem + "\nLicense key (empty for a trial): ");
            return Console.ReadLine();
        };
        Action<string> stopped = message =>
        {
            Console.Error.WriteLine(message);
            Environment.Exit(1);
        };
        using (var license = new License(ask, stopped))
        {
            try
            {
                license.Start();
                var how = license.IsOffline ? "Running without the server." : "Running.";
                Console.WriteLine(how + " Press Enter to end.");
                Console.ReadLine(); // your program works here
                return 0;
            }
            catch (LicenseException error)
            {
                Console.Error.WriteLine(error.Message);
                return 1;
            }
        }
    }
}
