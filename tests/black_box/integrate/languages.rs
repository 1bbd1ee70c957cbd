//! The languages of the files for programs, and how each is compiled and run.

use crate::integrate::harness::{self, Language};

pub const PYTHON: Language = Language {
    word: "python",
    file: "license.py",
    needs: "python3",
    patches: &[],
    build: &[],
    run: &["python3", "-B", "license.py"],
    run_in_german: &[],
};
pub const JAVASCRIPT: Language = Language {
    word: "javascript",
    file: "license.cjs",
    needs: "node",
    patches: &[],
    build: &[],
    run: &["node", "license.cjs"],
    run_in_german: &[],
};

pub const JAVA: Language = Language {
    word: "java",
    file: "License.java",
    needs: "javac",
    patches: &[],
    build: &["javac", "-Xlint:all", "License.java"],
    run: &["java", "-cp", "FOLDER", "License"],
    run_in_german: &["java", "-Duser.language=de", "-cp", "FOLDER", "License"],
};

pub const CPP: Language = Language {
    word: "cpp",
    file: "license.cpp",
    needs: "g++ && command -v curl-config",
    patches: &[],
    build: &[
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "license.cpp",
        "-o",
        "license",
        "-lcurl",
        "-lcrypto",
        "-pthread",
    ],
    run: &["license"],
    run_in_german: &[],
};

/// Compiled with the crates of these tests, which cargo has built beside the program that runs them.
pub const RUST: Language = Language {
    word: "rust",
    file: "license.rs",
    needs: "rustc",
    patches: &[],
    build: &[
        "sh",
        "-c",
        "crate() { ls -t \"$DEPENDENCIES\"/lib\"$1\"-*.rlib | head -n 1; }
        rustc --edition 2024 -D warnings -L dependency=\"$DEPENDENCIES\" license.rs \
            --extern ureq=\"$(crate ureq)\" --extern ed25519_dalek=\"$(crate ed25519_dalek)\" \
            --extern base64=\"$(crate base64)\" --extern serde_json=\"$(crate serde_json)\" \
            --extern sha2=\"$(crate sha2)\"",
    ],
    run: &["license"],
    run_in_german: &[],
};

/// Run by the .NET runtime that is a package for Python. No registry has the .NET SDK, hence Mono's compiler.
pub const CSHARP: Language = Language {
    word: "csharp",
    file: "License.cs",
    needs: "mcs",
    patches: &[],
    build: &[
        "sh",
        "-e",
        "-c",
        "mcs -out:license.exe License.cs \\
            -r:System.Net.Http,System.Numerics,System.Runtime.Serialization,System.Xml,System.Xml.Linq
        framework='{\"name\":\"Microsoft.NETCore.App\",\"version\":\"8.0.0\"}'
        echo \"{\\\"runtimeOptions\\\":{\\\"framework\\\":$framework}}\" > license.runtimeconfig.json
        chmod +x \"$DOTNET\"
        ln -s \"$DOTNET\" dotnet",
    ],
    run: &["dotnet", "license.exe"],
    run_in_german: &[],
};

/// Used where that runtime is missing. Mono cannot check a chain of ECDSA certificates, as those of the server are: that
/// the certificate is the server's is not tested.
pub const CSHARP_ON_MONO: Language = Language {
    needs: "mcs && command -v mono",
    patches: &[
        // What follows is not reached.
        (
            "!chain.Build(certificate)) return false",
            "authority != null) return true",
        ),
    ],
    build: &[
        "mcs",
        "-out:license.exe",
        "-r:System.Net.Http,System.Numerics,System.Runtime.Serialization,System.Xml,System.Xml.Linq",
        "License.cs",
    ],
    run: &["mono", "license.exe"],
    ..CSHARP
};

/// C# on whichever runtime is there.
pub fn csharp() -> &'static Language {
    if harness::dotnet().is_some() {
        return &CSHARP;
    }
    harness::report("csharp: the .NET runtime is not in target/py; Mono runs it instead");
    &CSHARP_ON_MONO
}
