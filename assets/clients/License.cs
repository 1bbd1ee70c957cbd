using System;
using System.Collections.Generic;
using System.Diagnostics;
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
using Microsoft.Win32;

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
        ["CURRENT-KEY-ID"] = "CURRENT-PUBLIC-KEY",
        ["NEXT-KEY-ID"] = "NEXT-PUBLIC-KEY",
    };
    static readonly HttpClient Http = new HttpClient(Handler());
    static readonly string Device = Fingerprint();
    static readonly string StartKey = Try(OwnStartKey) ?? Guid.NewGuid().ToString();
    static FileStream startFile;

    readonly Func<string, string> ask;
    readonly Action<string> stopped;
    readonly ManualResetEvent stop = new ManualResetEvent(false);
    readonly Thread thread;
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
        while (session == null && lease == null)
        {
            key = Load("key");
            if (key == "") key = (ask(problem) ?? "").Trim();
            try
            {
                StartSession(4);
            }
            catch (LicenseException error) when (error.Code == "license_not_found" || error.Field == "license_key")
            {
                problem = error.Message; // mistyped: asks again
                Save("key", "");
            }
            catch (LicenseException error) when (error.Code == "unreachable")
            {
                lease = ValidLease();
                if (lease == null) throw;
                Features = Words(lease);
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
        if (token != null) Try(() => Call("session/end", Members("session_token", token), 1, 2)); // else it times out
    }

    void StartSession(double patience = 0)
    {
        var device = Members("machine_id", Environment.MachineName, "hardware_hash", Device, "version", Version);
        if (key == "") key = Call("trial", device, patience).Element("license_key").Value; // the same for a device
        device["license_key"] = key;
        Call("activate", device, patience); // changes nothing if this device has a slot already
        var answer = Call("session/start", device, patience);
        session = answer.Element("session_token").Value;
        lease = null;
        interval = (double)answer.Element("heartbeat_interval");
        Features = Words(answer.Element("license"));
        Save("key", key);
        Save("lease", answer.Element("lease").Value); // empty if the shop does not allow work without the server
    }

    void KeepAlive()
    {
        double wait = session == null ? 1 : interval, pause = 0.5;
        while (!stop.WaitOne(TimeSpan.FromSeconds(wait * Between(0.8, 1)))) // programs should not call all at once
        {
            try
            {
                if (session == null) StartSession();
                else
                {
                    var answer = Call("session/heartbeat", Members("license_key", key, "session_token", session));
                    interval = (double)answer.Element("heartbeat_interval");
                }
                wait = interval;
                pause = 0.5;
            }
            catch (LicenseException error) when (error.Code == "session_not_found" || error.EndReason == "timeout")
            {
                session = null; // the machine slept: starts another session
                wait = 0;
            }
            catch (Exception error) // nothing may leave this thread
            {
                var refused = error is LicenseException told && told.Code != "unreachable";
                var expired = lease != null && ValidLease() == null;
                if (refused || expired) // ended by an administrator, taken over, suspended, in use elsewhere, ...
                {
                    session = null;
                    stop.Set();
                    stopped(refused ? error.Message : "The offline lease has expired. " + error.Message);
                    return;
                }
                wait = Math.Max((error as LicenseException)?.After ?? 0, pause); // goes on without the network
                pause = Math.Min(1.5 * pause, interval / 2);
            }
        }
    }

    /// <summary>The response. For `patience` seconds after a lost connection, calls again.</summary>
    static XElement Call(string endpoint, Dictionary<string, string> body, double patience = 0, double timeout = 10)
    {
        Stopwatch clock = null;
        while (true)
        {
            try
            {
                return Attempt(endpoint, body, TimeSpan.FromSeconds(timeout));
            }
            catch (LicenseException error) when (error.Code == "unreachable")
            {
                clock = clock ?? Stopwatch.StartNew();
                var wait = TimeSpan.FromSeconds(Math.Max(error.After, Between(0.5, 1)));
                if (clock.Elapsed + wait > TimeSpan.FromSeconds(patience)) throw;
                Thread.Sleep(wait);
            }
        }
    }

    static XElement Attempt(string endpoint, Dictionary<string, string> body, TimeSpan timeout)
    {
        var path = "/api/license/" + endpoint;
        var members = body.Select(member => Quote(member.Key) + ":" + Quote(member.Value));
        var sent = Encoding.UTF8.GetBytes("{" + string.Join(",", members) + "}");
        var random = new byte[32];
        using (var generator = RandomNumberGenerator.Create()) generator.GetBytes(random);
        var nonce = Convert.ToBase64String(random);
        HttpResponseMessage response;
        byte[] received;
        using (var limit = new CancellationTokenSource(timeout))
        using (var request = new HttpRequestMessage(HttpMethod.Post, Server + path))
        {
            var language = CultureInfo.CurrentUICulture.Name;
            request.Content = new ByteArrayContent(sent);
            request.Content.Headers.Add("Content-Type", "application/json");
            request.Headers.Add("X-API-Key", ApiKey);
            request.Headers.Add("Content-Digest", Digest(sent));
            request.Headers.Add("Signature-Nonce", nonce);
            request.Headers.Add("Accept-Language", language == "" ? "*" : language);
            if (endpoint == "session/start") request.Headers.Add("Idempotency-Key", StartKey);
            request.Headers.ConnectionClose = true; // each call has a connection of its own
            try
            {
                response = Http.SendAsync(request, limit.Token).GetAwaiter().GetResult();
                received = response.Content.ReadAsByteArrayAsync().GetAwaiter().GetResult();
            }
            catch (Exception error)
            {
                throw new LicenseException("The license server cannot be reached: " + error.GetBaseException().Message);
            }
        }
        var status = (int)response.StatusCode;
        if (status == 429 || status == 503)
        {
            var after = response.Headers.RetryAfter?.Delta?.TotalSeconds ?? 0;
            throw new LicenseException("The license server is busy (" + status + ").") { After = after };
        }
        Func<string, string> header = name =>
            response.Headers.TryGetValues(name, out var values) ? values.First() : "";
        var signed = "\"@status\": " + status + "\n\"content-digest\": " + Digest(received)
            + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + Digest(sent)
            + "\n\"@signature-params\": ";
        if (!IsSigned(signed, nonce, header("Signature-Input"), header("Signature")))
            throw new LicenseException("The license server cannot be reached: this response is not signed by it.");
        var answer = Parse(received);
        if (status < 400) return answer;
        var code = answer.Element("code").Value;
        if (Regex.IsMatch(code, "^(license|version|device)_")) Save("lease", ""); // nor may it work without the server
        var text = answer.Element("detail").Value + " " + (string)answer.Element("download_url"); // of one that may run
        string reason = (string)answer.Element("end_reason"), field = (string)answer.Element("field");
        throw new LicenseException(text.Trim()) { Code = code, EndReason = reason, Field = field };
    }

    /// <summary>Accepts a certificate only if the one in CaFile has issued it, whatever the system trusts.</summary>
    static HttpClientHandler Handler()
    {
        var handler = new HttpClientHandler { AllowAutoRedirect = false };
        if (CaFile != "") handler.ServerCertificateCustomValidationCallback = (request, certificate, given, errors) =>
        {
            using (var authority = new X509Certificate2(Path.Combine(AppContext.BaseDirectory, CaFile)))
            using (var chain = new X509Chain())
            {
                chain.ChainPolicy.ExtraStore.Add(authority);
                chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
                chain.ChainPolicy.VerificationFlags = X509VerificationFlags.AllowUnknownCertificateAuthority;
                return (errors & ~SslPolicyErrors.RemoteCertificateChainErrors) == SslPolicyErrors.None
                    && chain.Build(certificate)
                    && chain.ChainElements[chain.ChainElements.Count - 1].Certificate.Equals(authority);
            }
        };
        return handler;
    }

    static Dictionary<string, string> Members(params string[] pairs) =>
        Enumerable.Range(0, pairs.Length / 2).ToDictionary(i => pairs[2 * i], i => pairs[2 * i + 1]);

    static string Quote(string text) =>
        "\"" + Regex.Replace(text, "[\\p{Cc}\"\\\\]", found => "\\u" + ((int)found.Value[0]).ToString("x4")) + "\"";

    static XElement Parse(byte[] json) =>
        XElement.Load(JsonReaderWriterFactory.CreateJsonReader(json, XmlDictionaryReaderQuotas.Max));

    static string[] Words(XElement license) =>
        license.Element("features").Elements().Select(word => word.Value).ToArray();

    static double Between(double low, double high) => low + (high - low) * new Random().NextDouble();

    static byte[] Hash(byte[] bytes)
    {
        using (var sha = SHA256.Create()) return sha.ComputeHash(bytes);
    }

    static string Digest(byte[] body) => "sha-256=:" + Convert.ToBase64String(Hash(body)) + ":";

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

    static BigInteger Number(IEnumerable<byte> bytes) => new BigInteger(bytes.Concat(new byte[1]).ToArray());

    static BigInteger[] Add(BigInteger[] a, BigInteger[] b) // extended coordinates (RFC 8032, 5.1.4)
    {
        BigInteger k = Mod((a[1] - a[0]) * (b[1] - b[0])), l = Mod((a[1] + a[0]) * (b[1] + b[0]));
        BigInteger m = Mod(2 * a[3] * b[3] * D), n = Mod(2 * a[2] * b[2]), e = l - k, f = n - m, g = n + m, h = l + k;
        return new[] { Mod(e * f), Mod(g * h), Mod(f * g), Mod(e * h) };
    }

    static BigInteger[] Times(BigInteger n, BigInteger[] point) =>
        n.IsZero ? new BigInteger[] { 0, 1, 1, 0 }
            : n.IsEven ? Times(n / 2, Add(point, point)) : Add(point, Times(n - 1, point));

    static BigInteger[] Point(BigInteger y, bool odd)
    {
        var square = Mod((y * y - 1) * Inverse(D * y * y + 1));
        var x = BigInteger.ModPow(square, (P + 3) / 8, P);
        if (Mod(x * x - square) != 0) x = Mod(x * BigInteger.ModPow(2, (P - 1) / 4, P));
        if (x.IsEven == odd) x = P - x;
        return new[] { x, y, 1, Mod(x * y) };
    }

    static bool Verify(string keyId, string message, byte[] signature)
    {
        if (!PublicKeys.TryGetValue(keyId, out var encoded) || signature.Length != 64) return false;
        byte[] key = Convert.FromBase64String(encoded), hash;
        var s = Number(signature.Skip(32));
        using (var sha = SHA512.Create())
            hash = sha.ComputeHash(signature.Take(32).Concat(key).Concat(Encoding.UTF8.GetBytes(message)).ToArray());
        var negated = Point(Number(key) & (BigInteger.Pow(2, 255) - 1), key[31] < 128);
        var sum = Add(Times(s, Point(Mod(4 * Inverse(5)), false)), Times(Number(hash) % Order, negated));
        BigInteger inverse = Inverse(sum[2]), x = Mod(sum[0] * inverse), y = Mod(sum[1] * inverse);
        return s < Order && y + (x.IsEven ? 0 : BigInteger.Pow(2, 255)) == Number(signature.Take(32));
    }

    /// <summary>The lease of the last start, if it is for this license and device, and its term includes now.</summary>
    XElement ValidLease() => Try(() =>
    {
        var parts = Load("lease").Split('.');
        Func<string, byte[]> decode = part => Convert.FromBase64String(
            part.Replace('-', '+').Replace('_', '/') + new string('=', (4 - part.Length % 4) % 4));
        XElement header = Parse(decode(parts[0])), claims = Parse(decode(parts[1]));
        var own = Regex.Replace(key.ToUpperInvariant(), "[^0-9A-Z]", "");
        own = Regex.Replace(own.Replace('O', '0'), "[IL]", "1");
        var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds(); // nor is it valid if the clock is behind
        return header.Element("typ").Value == "lease+jwt" && claims.Element("license").Value == own
            && claims.Element("hardware_hash").Value == Device
            && (long)claims.Element("iat") - 300 <= now && now < (long)claims.Element("exp")
            && Verify(header.Element("kid").Value, parts[0] + "." + parts[1], decode(parts[2])) ? claims : null;
    });

    /// <summary>What the function returns; null if it fails.</summary>
    static T Try<T>(Func<T> function) where T : class
    {
        try
        {
            return function();
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
        var data = Environment.SpecialFolder.LocalApplicationData;
        var folder = Path.Combine(Environment.GetFolderPath(data, Environment.SpecialFolderOption.Create), product);
        return Path.Combine(Directory.CreateDirectory(folder).FullName, name);
    }

    static string Load(string name) => Try(() => File.ReadAllText(DataFile(name))) ?? "";

    static string Save(string name, string text) => Try(() =>
    {
        File.WriteAllText(DataFile(name), text);
        return text;
    }) ?? text; // the program works all the same

    /// <summary>The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back.
    /// The file stays locked until the program ends: a second copy at the same time uses another key.</summary>
    static string OwnStartKey()
    {
        startFile = new FileStream(DataFile("start"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        // FileShare.None is enough for .NET, but not for Mono; macOS has no other lock.
        if (!Directory.Exists("/System/Library")) startFile.Lock(0, 36);
        var key = new byte[36];
        if (startFile.Read(key, 0, 36) == 36) return Encoding.ASCII.GetString(key);
        key = Encoding.ASCII.GetBytes(Guid.NewGuid().ToString());
        startFile.Write(key, 0, 36);
        startFile.Flush();
        return Encoding.ASCII.GetString(key);
    }

    /// <summary>The system's id of this device, else a random one that is saved; hashed, useless to others.</summary>
    static string Fingerprint()
    {
        var id = Environment.OSVersion.Platform == PlatformID.Win32NT ? Try(WindowsId)
            : Directory.Exists("/System/Library") ? Try(MacId)
            : Try(() => Regex.Match(File.ReadAllText("/etc/machine-id"), "^([0-9a-f]{32})\n?$").Groups[1].Value);
        if (string.IsNullOrEmpty(id)) id = Load("device");
        if (id == "") id = Save("device", Guid.NewGuid().ToString());
        return string.Concat(Hash(Encoding.UTF8.GetBytes(Product + "\n" + id)).Select(part => part.ToString("x2")));
    }

    static string WindowsId() => (string)RegistryKey.OpenBaseKey(RegistryHive.LocalMachine, RegistryView.Registry64)
        .OpenSubKey(@"SOFTWARE\Microsoft\Cryptography").GetValue("MachineGuid");

    static string MacId()
    {
        var ioreg = new ProcessStartInfo("/usr/sbin/ioreg", "-rd1 -c IOPlatformExpertDevice");
        ioreg.RedirectStandardOutput = true;
        ioreg.UseShellExecute = false;
        var output = Process.Start(ioreg).StandardOutput.ReadToEnd();
        return Regex.Match(output, "\"IOPlatformUUID\" = \"(.+)\"").Groups[1].Value;
    }
}

/// <summary>The message is for the user. The code never changes; "unreachable": no signed response.</summary>
public sealed class LicenseException : Exception
{
    public LicenseException(string message) : base(message) { }

    public string Code { get; set; } = "unreachable";
    public string EndReason { get; set; }
    public string Field { get; set; }
    public double After { get; set; } // seconds to wait, if the server named them
}

/// <summary>How a console program uses it; a program with windows does the same in its first window.</summary>
static class LicenseExample
{
    static void Main()
    {
        using (var license = new License(Ask, Stopped))
        {
            try
            {
                license.Start();
                var how = license.IsOffline ? "Running without the server." : "Running.";
                Console.WriteLine(how + " Press Enter to end.");
                Console.ReadLine(); // your program works here
            }
            catch (LicenseException error)
            {
                Stopped(error.Message);
            }
        }
    }

    static string Ask(string problem)
    {
        Console.Write(problem + "\nLicense key (empty for a trial): ");
        return Console.ReadLine();
    }

    static void Stopped(string message)
    {
        Console.Error.WriteLine(message);
        Environment.Exit(1);
    }
}
