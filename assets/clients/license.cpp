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
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#ifdef _WIN32
#include <windows.h>
#else
#include <sys/file.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#include <uuid/uuid.h>
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

// A string, a number or a list of a JSON object, without quotation marks; "" if it is null or missing.
std::string member(const Json& object, const std::string& name) {
    const std::string mark = "\"" + name + "\":";
    std::string text;
    for (size_t at = object.find(mark); at != std::string::npos; at = object.find(mark, at + 1)) {
        size_t from = object.find_first_not_of(" \n", at + mark.size());
        if (object[at - 1] == '\\') continue;  // it is part of a text
        if (std::isdigit(object.at(from))) return object.substr(from, object.find_first_of(",}", from) - from);
        if (object[from] == '[') return object.substr(from + 1, object.find(']', from) - from - 1);
        if (object[from] != '"') continue;
        while (object.at(++from) != '"') {
            if (object[from] != '\\') text += object[from];
            else if (object.at(++from) == 'n') text += '\n';
            else if (object[from] == 'u') from += 4;  // a control character, which no text for people needs
            else text += object[from];
        }
        return text;
    }
    return text;
}

Json object(const std::map<std::string, std::string>& members) {
    Json json;
    for (const auto& [name, value] : members) {
        json += (json.empty() ? "{\"" : ",\"") + name + "\":\"";
        for (const unsigned char c : value) {  // the server passes over dashes in keys; others may not be UTF-8
            if (c == '"' || c == '\\') json += '\\';
            json += c >= ' ' && c < 127 ? static_cast<char>(c) : '-';
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
    // The key is none of other users' business.
    fs::permissions(base / fs::u8path(folder), fs::perms::owner_all, ignored);
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

// The system's id of this device, else a random one that is saved; hashed, so that no other product can use it.
std::string fingerprint() {
    std::string machine;
#ifdef _WIN32
    char guid[64];
    DWORD size = sizeof guid;
    const DWORD kind = RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY;
    const char* path = "SOFTWARE\\Microsoft\\Cryptography";
    if (RegGetValueA(HKEY_LOCAL_MACHINE, path, "MachineGuid", kind, nullptr, guid, &size) == 0) machine = guid;
#elif defined(__APPLE__)
    uuid_t uuid;  // IOPlatformUUID
    uuid_string_t text;
    const timespec limit = {5, 0};
    if (gethostuuid(uuid, &limit) == 0) machine = (uuid_unparse_upper(uuid, text), text);
#else
    const std::string text = load("/etc/machine-id");
    if (std::regex_match(text, std::regex("[0-9a-f]{32}\n?"))) machine = text.substr(0, 32);
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
#ifdef _WIN32
    const std::string name = variable("COMPUTERNAME");
#else
    char name[256] = "";
    gethostname(name, sizeof name - 1);
#endif
    return name[0] ? name : "unknown";
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

std::string in_language(const char* english, const char* german) {
    return language().substr(0, 2) == "de" ? german : english;
}

std::string digest(const std::string& body) { return "sha-256=:" + encoded(hash(EVP_sha256(), body)) + ":"; }

double between(double low, double high) {
    thread_local std::mt19937 generator{std::random_device{}()};
    return std::uniform_real_distribution<>(low, high)(generator);
}
}  // namespace

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The text is for the user. The code never changes; "unreachable": no signed response, and `cause` says why.
struct LicenseError : std::runtime_error {
    std::string code, cause, end_reason, field;
    double after = between(0.5, 1);  // seconds to wait before the next call

    LicenseError(std::string refusal, const std::string& text, const Json& answer = "")
        : std::runtime_error(text), code(std::move(refusal)), end_reason(member(answer, "end_reason")),
          field(member(answer, "field")) {}
    explicit LicenseError(std::string why, double wait = 0)
        : LicenseError("unreachable", in_language("The license server cannot be reached.",
              "Der Lizenzserver ist nicht erreichbar.")) {
        cause = std::move(why);
        after = std::max(wait, after);
    }
};

// The Idempotency-Key of starts. It is stored, so that after a crash the next run gets its session back. The file stays
// locked until the program ends: a second copy that runs at the same time uses a key of its own.
std::string own_start_key() {
    const std::string random = random_id();
#ifdef _WIN32
    FILE* file = _wfsopen(data_file("start").c_str(), L"a+b", _SH_DENYRW);
    const bool locked = file;
#else
    FILE* file = std::fopen(data_file("start").c_str(), "a+be");
    const bool locked = file && flock(fileno(file), LOCK_EX | LOCK_NB) == 0;
#endif
    if (!locked) return random;
    char stored[64];
    std::rewind(file);
    if (const size_t size = std::fread(stored, 1, sizeof stored, file)) return {stored, size};
    std::fwrite(random.data(), 1, random.size(), file);
    std::fflush(file);
    return random;
}

size_t append(char* bytes, size_t size, size_t count, void* text) {
    static_cast<std::string*>(text)->append(bytes, size * count);
    return size * count;
}

// Whether the server has signed exactly this response to exactly this request.
bool is_signed(const std::string& base, const std::string& nonce, const std::string& input, const std::string& value) {
    const std::string covered = R"(sig1=("@status" "content-digest" "@method";req "@path";req "content-digest";req))";
    const std::regex form(R"re(;created=\d+;keyid="(\w+)";alg="ed25519";nonce="([^"]+)")re");
    const std::regex bytes("sig1=:([A-Za-z0-9+/=]+):");
    std::smatch parameters, signature;
    const std::string rest = input.size() > covered.size() ? input.substr(covered.size()) : "";
    return input.compare(0, covered.size(), covered) == 0 && std::regex_match(rest, parameters, form)
        && std::regex_match(value, signature, bytes) && parameters[2] == nonce
        && verify(parameters[1], base + input.substr(5), decoded(signature[1]));
}

// Ends the call, within a second, once the program does not run any more.
int progress(void* running, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return running && !*static_cast<const std::atomic<bool>*>(running);
}

Json attempt(const std::string& endpoint, const Json& sent, double timeout, std::atomic<bool>* running) {
    static const std::string start_key = own_start_key();
    const std::string path = "/api/license/" + endpoint, url = server + path, nonce = random_id();
    const std::string authority = (program_folder() / ca_file).string();
    std::string received, fields;
    char problem[CURL_ERROR_SIZE] = "";
    long status = 0;
    curl_slist* headers = nullptr;
    for (const std::string& header : {"X-API-Key: " + api_key, std::string("Content-Type: application/json"),
             "Content-Digest: " + digest(sent), "Signature-Nonce: " + nonce, "Accept-Language: " + language(),
             endpoint == "session/start" ? "Idempotency-Key: " + start_key : "Expect:"}) {
        headers = curl_slist_append(headers, header.c_str());
    }
    CURL* curl = curl_easy_init();  // each call has a connection of its own
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    if (!ca_file.empty()) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, authority.c_str());
        curl_easy_setopt(curl, CURLOPT_CAPATH, nullptr);  // else some builds trust those of the system as well
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(sent.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, sent.data());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, append);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &fields);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(1000 * timeout));
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, running);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, problem);
    const CURLcode result = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (result != CURLE_OK) throw LicenseError(*problem ? problem : curl_easy_strerror(result));
    const auto field = [&fields](const std::string& name) {
        std::smatch found;
        const std::regex form("\r\n" + name + ": *([^\r]*)", std::regex::icase);
        return std::regex_search(fields, found, form) ? found[1].str() : "";
    };
    if (status == 429 || status == 503) {
        const auto after = std::strtoul(field("Retry-After").c_str(), nullptr, 10);
        throw LicenseError("the server is busy", static_cast<double>(after));
    }
    const std::string base = "\"@status\": " + std::to_string(status) + "\n\"content-digest\": " + digest(received)
        + "\n\"@method\";req: POST\n\"@path\";req: " + path + "\n\"content-digest\";req: " + digest(sent)
        + "\n\"@signature-params\": ";
    if (!is_signed(base, nonce, field("Signature-Input"), field("Signature"))) {
        throw LicenseError("the response is not signed by the license server");
    }
    if (status < 400) return received;
    // Nor may the program work without the server.
    if (std::regex_search(member(received, "code"), std::regex("^(license|version|device)_"))) save("lease", "");
    const std::string new_version = member(received, "download_url");  // that may run
    const std::string text = member(received, "detail") + (new_version.empty() ? "" : " ") + new_version;
    throw LicenseError(member(received, "code"), text, received);
}

// The server's response, until a moment. Calls again after a lost connection if `spare` seconds remain then.
Json call(const std::string& endpoint, const std::map<std::string, std::string>& body, double until, double spare,
    std::atomic<bool>* running = nullptr) {
    for (;;) {
        std::chrono::duration<double> wait;
        try {
            return attempt(endpoint, object(body), std::max(until - now(), 2.0), running);
        } catch (const LicenseError& error) {
            wait = std::chrono::duration<double>(error.after);
            if (error.code != "unreachable" || now() + error.after + spare > until) throw;
        }
        std::this_thread::sleep_for(wait);
    }
}

class License {
public:
    using Ask = std::function<std::optional<std::string>(std::string)>;

    // `ask(problem)` gets the license key from the user, "" for a trial, nullopt if canceled; `problem` says why the
    // last one was refused. `stopped(message)` is called on a background thread if the program has to stop.
    License(Ask ask, std::function<void(std::string)> stopped)
        : ask_(std::move(ask)), stopped_(std::move(stopped)) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
    }
    ~License() { end(); }

    // Starts a session; without the server, uses the lease of the last one. Throws LicenseError.
    void start() {
        end();  // if it was started before
        const std::string authority = (program_folder() / ca_file).string();
        if (!fs::exists(authority)) {
            throw LicenseError("ca_file_missing", "The license server's certificate is missing: " + authority);
        }
        std::string problem;
        key_ = load(data_file("key"));
        while (session_.empty() && lease_.empty()) {
            const auto entered = key_.empty() ? ask_(problem) : key_;
            if (!entered) {
                throw LicenseError("canceled", in_language("No license key was entered.",
                    "Es wurde kein Lizenzschl\303\274ssel eingegeben."));
            }
            key_ = save("key", *entered);
            try {
                response = start_session(3);
                features = member(response, "features");
            } catch (const LicenseError& error) {
                if (error.code == "license_not_found" || error.field == "license_key") {
                    problem = error.what();  // mistyped: asks again
                    key_ = save("key", "");
                    continue;
                }
                lease_ = error.code == "unreachable" ? valid_lease() : "";
                if (lease_.empty()) throw;
                features = member(lease_, "features");
            }
        }
        offline = session_.empty();
        std::promise<void> ending;
        stop_ = std::promise<void>();
        ended_ = ending.get_future();
        running_ = true;
        std::thread([this, stopped = stopped_, stopping = stop_.get_future(), ending = std::move(ending)]() mutable {
            const std::string message = keep_alive(stopping), told = running_ ? message : "";
            ending.set_value();  // from here on, this License may be gone: `stopped` may end it, or exit
            if (!told.empty()) stopped(told);
        }).detach();
    }

    // Ends the session, which frees the license at once. The destructor does it too.
    void end() {
        if (!running_.exchange(false)) return;
        stop_.set_value();
        ended_.wait();
        try {
            if (!session_.empty()) call("session/end", {{"session_token", session_}}, now() + 2.5, 2);
        } catch (const std::exception&) {
            // The session times out by itself.
        }
        session_.clear();
        lease_.clear();
        offline = false;
    }

    // The next start asks for a key again: for a user who has bought another license.
    static void forget_key() { save("key", ""); }

    Json response;         // of session/start, when it started; "" without the server
    std::string features;  // what was sold with the license when it started: words in quotation marks, with commas
    std::atomic<bool> offline = false;  // whether it runs on a lease, since the server could not be reached

private:
    Json start_session(double spare) {
        const double until = now() + 10;  // for all of its calls
        std::map<std::string, std::string> device = {
            {"machine_id", machine_name()}, {"hardware_hash", device_}, {"version", version}};
        if (key_.empty()) key_ = save("key", member(call("trial", device, until, spare), "license_key"));
        device["license_key"] = key_;
        call("activate", device, until, spare);  // changes nothing if this device has a slot already
        const Json answer = call("session/start", device, until, spare);
        session_ = member(answer, "session_token");
        lease_.clear();
        interval_ = std::stod(member(answer, "heartbeat_interval"));
        offline = false;
        save("lease", member(answer, "lease"));  // empty if the shop does not allow work without the server
        return answer;
    }

    // Returns why the program has to stop, or "" once it ends.
    std::string keep_alive(const std::future<void>& stopping) {
        double wait = session_.empty() ? 1 : interval_, pause = 0.5;
        const auto jittered = [&wait] { return std::chrono::duration<double>(wait * between(0.8, 1)); };
        while (stopping.wait_for(jittered()) == std::future_status::timeout) {
            LicenseError told("");
            try {
                if (session_.empty()) {
                    start_session(10);  // `end` waits for it
                } else {
                    const std::map<std::string, std::string> beat{{"license_key", key_}, {"session_token", session_}};
                    const Json answer = call("session/heartbeat", beat, now() + 5, 5, &running_);
                    interval_ = std::stod(member(answer, "heartbeat_interval"));
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
                offline = false;
                return told.what();
            } else if (!lease_.empty() && valid_lease().empty()) {
                offline = false;
                return told.what();
            } else {  // a session goes on without the network, and while the server is busy
                wait = std::min(std::max(told.after, pause), interval_);
                pause = std::min(1.5 * pause, interval_ / 2);
            }
        }
        return "";
    }

    // The lease of the last start, if it is for this license and device and the clock is within its term.
    Json valid_lease() const try {
        const std::string token = load(data_file("lease"));
        const size_t first = token.find('.'), last = token.rfind('.');
        const Json header = decoded(token.substr(0, first)), lease = decoded(token.substr(first + 1, last - first - 1));
        std::string own;
        for (const unsigned char c : key_) {
            const char upper = static_cast<char>(std::toupper(c));
            if (std::isalnum(c)) own += upper == 'O' ? '0' : upper == 'I' || upper == 'L' ? '1' : upper;
        }
        const auto today = static_cast<double>(std::time(nullptr));  // nor is it valid if the clock is behind
        const bool valid = member(header, "typ") == "lease+jwt" && member(lease, "license") == own
            && member(lease, "hardware_hash") == device_ && std::stod(member(lease, "iat")) - 300 <= today
            && today < std::stod(member(lease, "exp"))
            && verify(member(header, "kid"), token.substr(0, last), decoded(token.substr(last + 1)));
        return valid ? lease : "";
    } catch (const std::exception&) {
        return "";
    }

    Ask ask_;
    std::function<void(std::string)> stopped_;
    const std::string device_ = fingerprint();
    std::string key_, session_;  // the token
    Json lease_;
    double interval_ = 30;  // seconds between heartbeats
    std::atomic<bool> running_ = false;
    std::promise<void> stop_;
    std::future<void> ended_;
};

int main() {
    const auto ask = [](const std::string& problem) -> std::optional<std::string> {
        std::cout << problem << "\nLicense key (empty for a trial): " << std::flush;
        std::string key;
        if (!std::getline(std::cin, key)) return std::nullopt;  // the end of the input: canceled
        return key;
    };
    const auto stopped = [](const std::string& message) {
        std::cerr << message << std::endl;
        std::_Exit(1);
    };
    try {
        License license(ask, stopped);
        license.start();
        const std::string how = license.offline ? "Running without the server." : "Running.";
        std::cout << how << " Press Enter to end." << std::endl;
        std::string line;
        std::getline(std::cin, line);  // your program works here
    } catch (const LicenseError& error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
