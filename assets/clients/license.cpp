// Runs a program under a license: takes a slot for this device, keeps a session alive while the program works, ends it.
//
// Accepts only responses and offline leases that the license server has signed (Ed25519; RFC 9421, RFC 7515). If a
// session timed out while the machine slept, another one is started; while the server cannot be reached, work goes on.
// C++17 with libcurl and OpenSSL 1.1.1 or newer. `main` at the end shows how to use it:
//   c++ -std=c++17 license.cpp -o license -lcurl -lcrypto -pthread
#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#ifdef _WIN32
#include <windows.h>
#else
#include <sys/file.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif
#endif

namespace {
const std::string server = "https://licenses.example.org";
const std::string api_key = "YOUR-API-KEY";
const std::string product = "Example product";  // part of each fingerprint: never change it once customers use it
const std::string version = "1.0.0";            // of your program
const std::string ca_file = "ca.pem";           // the certificate to trust, beside the program; "": those of the system
const std::map<std::string, std::string> public_keys = {  // the current and the next one, for a key rotation
    {"CURRENT-KEY-ID", "CURRENT-PUBLIC-KEY"},
    {"NEXT-KEY-ID", "NEXT-PUBLIC-KEY"},
};
namespace fs = std::filesystem;
using Json = std::string;

// A string, a number or a list of a JSON object, without quotation marks; nothing if it is null or missing.
std::optional<std::string> member(const Json& object, const std::string& name) {
    const std::string mark = "\"" + name + "\":";
    size_t at = object.find(mark);
    while (at != std::string::npos && at > 0 && object[at - 1] == '\\') at = object.find(mark, at + 1);
    if (at == std::string::npos) return {};
    at = object.find_first_not_of(" \n", at + mark.size());
    std::string text;
    if (object[at] == '[') return object.substr(at + 1, object.find(']', at) - at - 1);
    if (object[at] != '"') {
        text = object.substr(at, object.find_first_of(",}", at) - at);
        return text == "null" ? std::nullopt : std::make_optional(text);
    }
    while (object[++at] != '"' && at + 1 < object.size()) {
        if (object[at] != '\\') text += object[at];
        else if (object[++at] == 'n') text += '\n';
        else if (object[at] == 'u') at += 4;  // a control character, which no text for people needs
        else text += object[at];
    }
    return text;
}

Json object(const std::map<std::string, std::string>& members) {
    Json json;
    for (const auto& [name, value] : members) {
        json += (json.empty() ? "{\"" : ",\"") + name + "\":\"";
        for (const char c : value) {
            if (c == '"' || c == '\\') json += '\\';
            if (static_cast<unsigned char>(c) >= ' ') json += c;
        }
        json += '"';
    }
    return json + "}";
}

std::string hash(const EVP_MD* algorithm, const std::string& text) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_Digest(text.data(), text.size(), bytes, &size, algorithm, nullptr);
    return {reinterpret_cast<char*>(bytes), size};
}

std::string encoded(const std::string& bytes) {
    std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const auto from = reinterpret_cast<const unsigned char*>(bytes.data());
    text.resize(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), from, static_cast<int>(bytes.size())));
    return text;
}

std::string decoded(std::string text) {  // base64, also that of URLs
    std::replace(text.begin(), text.end(), '-', '+');
    std::replace(text.begin(), text.end(), '_', '/');
    const size_t size = text.find_last_not_of('=') + 1;
    text.resize((size + 3) / 4 * 4, '=');
    std::string bytes(text.size(), '\0');
    const auto from = reinterpret_cast<const unsigned char*>(text.data());
    EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), from, static_cast<int>(text.size()));
    return bytes.substr(0, size * 3 / 4);
}

bool verify(const std::string& key_id, const std::string& message, const std::string& signature) {
    const auto found = public_keys.find(key_id);
    if (found == public_keys.end() || signature.size() != 64) return false;
    const std::string raw = decoded(found->second);
    const auto bytes = [](const std::string& text) { return reinterpret_cast<const unsigned char*>(text.data()); };
    EVP_PKEY* key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes(raw), raw.size());
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    const bool genuine = key && EVP_DigestVerifyInit(context, nullptr, nullptr, nullptr, key) == 1
        && EVP_DigestVerify(context, bytes(signature), 64, bytes(message), message.size()) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return genuine;
}

fs::path program_folder() {
#ifdef _WIN32
    wchar_t path[32768];
    return GetModuleFileNameW(nullptr, path, 32768) ? fs::path(path).parent_path() : fs::path();
#elif defined(__APPLE__)
    char path[4096];
    uint32_t size = sizeof path;
    return _NSGetExecutablePath(path, &size) == 0 ? fs::canonical(path).parent_path() : fs::path();
#else
    return fs::read_symlink("/proc/self/exe").parent_path();
#endif
}

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

// A file in the user's folder for application data; the program's own folder may be read-only.
fs::path data_file(const std::string& name) {
#ifdef _WIN32
    const wchar_t* local = _wgetenv(L"LOCALAPPDATA");
    const fs::path base = local ? local : L".";
#elif defined(__APPLE__)
    const fs::path base = variable("HOME") + "/Library/Application Support";
#else
    const std::string data = variable("XDG_DATA_HOME");
    const fs::path base = data.empty() ? variable("HOME") + "/.local/share" : data;
#endif
    std::string folder;
    for (const unsigned char c : product) folder += c > 127 || std::isalnum(c) || c == '_' ? static_cast<char>(c) : '-';
    std::error_code ignored;
    fs::create_directories(base / fs::u8path(folder), ignored);
    return base / fs::u8path(folder) / name;
}

std::string load(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

std::string save(const std::string& name, const std::string& text) {
    std::ofstream(data_file(name), std::ios::binary) << text;  // if that fails, the program works all the same
    return text;
}

std::string random_id() {
    unsigned char bytes[16];
    RAND_bytes(bytes, sizeof bytes);
    return encoded({reinterpret_cast<char*>(bytes), sizeof bytes});
}

#ifdef __APPLE__
std::string output(const char* command) {
    std::string text;
    if (FILE* pipe = popen(command, "r")) {
        for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
        pclose(pipe);
    }
    return text;
}
#endif

// The system's id of this device, else a random one that is saved; hashed, so that no other product can use it.
std::string fingerprint() {
    std::smatch found;
    std::string machine;
#ifdef _WIN32
    char guid[64];
    DWORD size = sizeof guid;
    const DWORD kind = RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY;
    const char* path = "SOFTWARE\\Microsoft\\Cryptography";
    if (RegGetValueA(HKEY_LOCAL_MACHINE, path, "MachineGuid", kind, nullptr, guid, &size) == 0) machine = guid;
#elif defined(__APPLE__)
    const std::string text = output("/usr/sbin/ioreg -rd1 -c IOPlatformExpertDevice");
    if (std::regex_search(text, found, std::regex("\"IOPlatformUUID\" = \"(.+)\""))) machine = found[1];
#else
    const std::string text = load("/etc/machine-id");
    if (std::regex_match(text, found, std::regex("([0-9a-f]{32})\n?"))) machine = found[1];
#endif
    if (machine.empty()) machine = load(data_file("device"));
    if (machine.empty()) machine = save("device", random_id());
    std::string hex;
    for (const unsigned char byte : hash(EVP_sha256(), product + "\n" + machine)) {
        hex += "0123456789abcdef"[byte >> 4];
        hex += "0123456789abcdef"[byte & 15];
    }
    return hex;
}

std::string machine_name() {
    char name[256] = "";
#ifdef _WIN32
    DWORD size = sizeof name;
    GetComputerNameA(name, &size);
#else
    gethostname(name, sizeof name - 1);
#endif
    return *name ? name : "unknown";
}

std::string language() {
#ifdef _WIN32
    wchar_t name[LOCALE_NAME_MAX_LENGTH];
    const int size = GetUserDefaultLocaleName(name, LOCALE_NAME_MAX_LENGTH);
    return size > 1 ? std::string(name, name + size - 1) : "*";
#else
    for (const char* name : {"LC_ALL", "LC_MESSAGES", "LANG"}) {
        if (const std::string value = variable(name); !value.empty()) return value;
    }
    return "*";
#endif
}

std::string digest(const std::string& body) { return "sha-256=:" + encoded(hash(EVP_sha256(), body)) + ":"; }

double between(double low, double high) {
    thread_local std::mt19937 generator{std::random_device{}()};
    return std::uniform_real_distribution<>(low, high)(generator);
}
}  // namespace

// The text is for the user. The code never changes; "unreachable": no signed response.
struct LicenseError : std::runtime_error {
    std::string code, end_reason, field;
    double after;  // seconds to wait, if the server named them

    explicit LicenseError(const std::string& text, double wait = 0)
        : std::runtime_error(text), code("unreachable"), after(wait) {}
    LicenseError(const std::string& text, const Json& answer) : LicenseError(text) {
        code = member(answer, "code").value_or("");
        end_reason = member(answer, "end_reason").value_or("");
        field = member(answer, "field").value_or("");
    }
};

class License {
public:
    // `ask(problem)` gets the license key from the user, "" for a trial; `problem` says why the last one was refused.
    // `stopped(message)` is called on a background thread if the program has to stop.
    License(std::function<std::string(std::string)> ask, std::function<void(std::string)> stopped)
        : ask_(std::move(ask)), stopped_(std::move(stopped)) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        start_key_ = own_start_key();
    }
    ~License() { end(); }

    // Starts a session; without the server, uses the lease of the last one. Throws LicenseError.
    void start() {
        std::string problem;
        std::chrono::steady_clock::time_point until;
        while (session_.empty() && lease_.empty()) {
            if (key_.empty()) key_ = load(data_file("key"));
            if (key_.empty()) key_ = ask_(problem);
            const auto now = std::chrono::steady_clock::now();
            if (until.time_since_epoch().count() == 0) until = now + std::chrono::seconds(4);
            try {
                start_session();
            } catch (const LicenseError& error) {
                const std::chrono::duration<double> wait(std::max(error.after, between(0.5, 1)));
                if (error.code == "license_not_found" || error.field == "license_key") {
                    problem = error.what();  // mistyped: asks again
                    key_ = save("key", "");
                    until = {};
                } else if (error.code == "unreachable" && std::chrono::steady_clock::now() + wait < until) {
                    std::this_thread::sleep_for(wait);
                } else {
                    lease_ = error.code == "unreachable" ? valid_lease() : "";
                    if (lease_.empty()) throw;
                    features = member(lease_, "features").value_or("");
                }
            }
        }
        offline = session_.empty();
        thread_ = std::thread([this] { keep_alive(); });
    }

    // Ends the session, which frees the license at once. The destructor does it too.
    void end() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
        try {
            const std::string token = std::exchange(session_, "");
            if (!token.empty()) call("session/end", object({{"session_token", token}}));
        } catch (const std::exception&) {
            // The session times out by itself.
        }
    }

    std::string features;               // what was sold with the license: words in quotation marks, with commas
    std::atomic<bool> offline = false;  // whether it runs on a lease, since the server could not be reached

private:
    void start_session() {
        std::map<std::string, std::string> device = {
            {"machine_id", machine_name()}, {"hardware_hash", fingerprint()}, {"version", version}};
        if (key_.empty()) key_ = member(call("trial", object(device)), "license_key").value();  // one for each device
        device["license_key"] = key_;
        call("activate", object(device));  // changes nothing if this device has a slot already
        const Json answer = call("session/start", object(device), start_key_);
        session_ = member(answer, "session_token").value();
        lease_.clear();
        offline = false;
        interval_ = std::stod(member(answer, "heartbeat_interval").value());
        features = member(answer, "features").value_or("");
        save("key", key_);
        save("lease", member(answer, "lease").value_or(""));  // null if the shop does not allow work without the server
    }

    void keep_alive() {
        double wait = session_.empty() ? 1 : interval_, pause = 0.5;
        while (!stops_within(wait * between(0.8, 1))) {  // with jitter: programs should not call all at one moment
            LicenseError told("");
            try {
                if (session_.empty()) {
                    start_session();
                } else {
                    const Json answer =
                        call("session/heartbeat", object({{"license_key", key_}, {"session_token", session_}}));
                    interval_ = std::stod(member(answer, "heartbeat_interval").value());
                }
                wait = interval_;
                pause = 0.5;
                continue;
            } catch (const LicenseError& error) {
                told = error;
            } catch (const std::exception&) {
                // Nothing may leave this thread.
            }
            if (told.code == "session_not_found" || told.end_reason == "timeout") {
                session_.clear();  // the machine slept: starts another session
                wait = 0;
            } else if (told.code != "unreachable") {  // ended, taken over, suspended, in use on another device, ...
                session_.clear();
                return stopped_(told.what());
            } else if (!lease_.empty() && valid_lease().empty()) {
                return stopped_("The license server could not be reached before the offline lease expired.");
            } else {  // a session goes on without the network, and while the server is busy
                wait = std::max(told.after, pause);
                pause = std::min(2 * pause, interval_ / 2);
            }
        }
    }

    bool stops_within(double seconds) {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return stop_; });
    }

    // The lease of the last start, if it is for this license and device and the clock is within its term.
    Json valid_lease() const {
        const std::string token = load(data_file("lease"));
        const size_t first = token.find('.'), last = token.rfind('.');
        if (first == last) return "";
        const Json header = decoded(token.substr(0, first)), lease = decoded(token.substr(first + 1, last - first - 1));
        std::string own;
        for (const char c : key_) {
            const char upper = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
            if (!std::isalnum(static_cast<unsigned char>(c))) continue;
            own += upper == 'O' ? '0' : upper == 'I' || upper == 'L' ? '1' : upper;
        }
        const auto of = [](const Json& json, const char* name) { return member(json, name).value_or("0"); };
        const auto now = static_cast<double>(std::time(nullptr));  // nor is it valid if the clock is behind
        const bool valid = of(header, "typ") == "lease+jwt" && of(lease, "license") == own
            && of(lease, "hardware_hash") == fingerprint() && std::stod(of(lease, "iat")) - 300 <= now
            && now < std::stod(of(lease, "exp"))
            && verify(member(header, "kid").value_or(""), token.substr(0, last), decoded(token.substr(last + 1)));
        return valid ? lease : "";
    }

    // The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The file
    // stays locked until the program ends: a second copy that runs at the same time uses a key of its own.
    static std::string own_start_key() {
        const std::string random = random_id();
#ifdef _WIN32
        FILE* file = _wfsopen(data_file("start").c_str(), L"a+b", _SH_DENYRW);
        if (!file) return random;
#else
        FILE* file = std::fopen(data_file("start").c_str(), "a+b");
        if (!file || flock(fileno(file), LOCK_EX | LOCK_NB) != 0) return random;
#endif
        char stored[64];
        std::rewind(file);
        if (const size_t size = std::fread(stored, 1, sizeof stored, file)) return {stored, size};
        std::fwrite(random.data(), 1, random.size(), file);
        std::fflush(file);
        return random;
    }

    static size_t append(char* bytes, size_t size, size_t count, void* text) {
        static_cast<std::string*>(text)->append(bytes, size * count);
        return size * count;
    }

    // The server's response. Each call has a connection of its own.
    static Json call(const std::string& endpoint, const Json& sent, const std::string& idempotency_key = "") {
        const std::string path = "/api/license/" + endpoint, nonce = random_id();
        std::string received, fields, cause;
        long status = 0;
        for (int attempt = 1; attempt <= 2 && status == 0; ++attempt) {  // the network may lose the first
            CURL* curl = curl_easy_init();
            curl_slist* headers = nullptr;
            for (const std::string& header : {"X-API-Key: " + api_key, std::string("Content-Type: application/json"),
                     "Content-Digest: " + digest(sent), "Signature-Nonce: " + nonce, "Accept-Language: " + language(),
                     "Idempotency-Key: " + idempotency_key, std::string("Connection: close"), std::string("Expect:")}) {
                if (header != "Idempotency-Key: ") headers = curl_slist_append(headers, header.c_str());
            }
            received.clear();
            fields.clear();
            curl_easy_setopt(curl, CURLOPT_URL, (server + path).c_str());
            const std::string authority = (program_folder() / ca_file).string();
            if (!ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, authority.c_str());
            curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
            curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(sent.size()));
            curl_easy_setopt(curl, CURLOPT_POSTFIELDS, sent.data());
            curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
            curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
            curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, append);
            curl_easy_setopt(curl, CURLOPT_HEADERDATA, &fields);
            curl_easy_setopt(curl, CURLOPT_TIMEOUT, 10L);
            curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
            const CURLcode result = curl_easy_perform(curl);
            if (result == CURLE_OK) curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
            cause = curl_easy_strerror(result);
            curl_slist_free_all(headers);
            curl_easy_cleanup(curl);
        }
        if (status == 0) throw LicenseError("The license server cannot be reached: " + cause);
        const auto field = [&fields](const std::string& name) {
            std::smatch found;
            const std::regex form("\r\n" + name + ": *([^\r]*)", std::regex::icase);
            return std::regex_search(fields, found, form) ? found[1].str() : "";
        };
        if (status == 429 || status == 503) {
            const std::string text = "The license server is busy (" + std::to_string(status) + ").";
            throw LicenseError(text, std::atof(field("Retry-After").c_str()));
        }
        const std::string base = "\"@status\": " + std::to_string(status) + "\n\"content-digest\": " + digest(received)
            + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + digest(sent)
            + "\n\"@signature-params\": ";
        if (!is_signed(base, nonce, field("Signature-Input"), field("Signature"))) {
            throw LicenseError("The license server cannot be reached: this response is not signed by it.");
        }
        if (status < 400) return received;
        const std::string code = member(received, "code").value_or("");
        // Nor may the program work without the server.
        if (std::regex_search(code, std::regex("^(license|version|device)_"))) save("lease", "");
        const std::string url = member(received, "download_url").value_or("");  // of a version that may run
        throw LicenseError(member(received, "detail").value_or(code) + (url.empty() ? "" : " " + url), received);
    }

    // Whether the server has signed exactly this response to exactly this request.
    static bool is_signed(
        const std::string& base, const std::string& nonce, const std::string& input, const std::string& value) {
        const std::string covered =
            R"(sig1=("@status" "content-digest" "@method";req "@path";req "content-digest";req))";
        const std::regex form(R"re(;created=\d+;keyid="(\w+)";alg="ed25519";nonce="([^"]+)")re");
        const std::regex bytes("sig1=:([A-Za-z0-9+/=]+):");
        std::smatch parameters, signature;
        const std::string rest = input.size() > covered.size() ? input.substr(covered.size()) : "";
        return input.compare(0, covered.size(), covered) == 0 && std::regex_match(rest, parameters, form)
            && std::regex_match(value, signature, bytes) && parameters[2] == nonce
            && verify(parameters[1], base + input.substr(5), decoded(signature[1]));
    }

    std::function<std::string(std::string)> ask_;
    std::function<void(std::string)> stopped_;
    std::string start_key_, key_, session_;  // the token
    Json lease_;
    double interval_ = 30;  // seconds between heartbeats
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false;
    std::thread thread_;
};

int main() {
    const auto ask = [](const std::string& problem) {
        std::cout << problem << "\nLicense key (empty for a trial): " << std::flush;
        std::string key;
        std::getline(std::cin, key);
        return key;
    };
    const auto stopped = [](const std::string& message) {
        std::cerr << message << std::endl;
        std::_Exit(1);
    };
    try {
        License license(ask, stopped);
        license.start();
        std::cout << (license.offline ? "Running without the server." : "Running.");
        std::cout << " Press Enter to end." << std::endl;
        std::string line;
        std::getline(std::cin, line);  // your program works here
    } catch (const LicenseError& error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
