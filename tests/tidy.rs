//! The house's rules that no other tool holds: which room may name which, a head on every file, no long file, no
//! test that is left out silently, and no text that belongs to a machine. What a workspace crate may name, its
//! `Cargo.toml` holds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "tidy/circles.rs"]
mod circles;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A file is one room's one subject; longer ones hide a second. `gateway/problem.rs` did, at 401 lines: what a
/// refusal is, and how it is rendered.
const FILE_LINES_MAX: usize = 400;

/// Rooms below `src/`, and the words that no file there may have (docs/ARCHITECTURE.md).
const ARROWS: [(&str, &[&str]); 9] = [
    (
        "store",
        &[
            "orgd_listener",
            "tonic",
            "prost",
            "axum",
            "crate::app",
            "crate::auth",
            "crate::grpc",
            "crate::gateway",
            "crate::proto",
            "crate::server",
            "crate::cli",
            "crate::config",
        ],
    ),
    (
        "auth",
        &[
            "orgd_listener",
            "tonic",
            "axum",
            "sea_orm",
            "crate::app",
            "crate::grpc",
            "crate::gateway",
            "crate::proto",
            "crate::server",
            "crate::cli",
            "crate::config",
        ],
    ),
    (
        "app",
        &[
            "orgd_listener",
            "tonic",
            "prost",
            "axum",
            "sea_orm",
            "http::",
            "crate::proto",
            "crate::grpc",
            "crate::gateway",
            "crate::server",
            "crate::cli",
            "crate::config",
        ],
    ),
    (
        "grpc",
        &["axum", "sea_orm", "crate::gateway", "crate::server", "crate::cli", "crate::config"],
    ),
    (
        "gateway",
        &[
            "sea_orm",
            "crate::app",
            "crate::store",
            "crate::auth",
            "crate::domain",
            "crate::grpc",
            "crate::server",
            "crate::cli",
            "crate::config",
        ],
    ),
    // But for the table of fields, see `TABLES`.
    ("proto", &["crate::"]),
    ("config", &["crate::"]),
    (
        "telemetry",
        &[
            "tonic::",
            "axum",
            "sea_orm",
            "crate::domain",
            "crate::app",
            "crate::auth",
            "crate::store",
            "crate::grpc",
            "crate::gateway",
            "crate::proto",
            "crate::server",
            "crate::cli",
        ],
    ),
    ("rate_limit.rs", &["tonic", "axum", "crate::domain", "crate::grpc", "crate::gateway"]),
];

/// The table of an organization's fields, that of the reasons of refusals, and how much of a credential's id a log line
/// has. They need nothing else: both ends of the wire use them, as a name would else stand once more in each.
const TABLES: [&str; 3] = ["domain::fields", "domain::reason", "domain::SHORT_ID_LETTERS"];

/// Words that only some files of the service and of `domain` may have: what the architecture's invariants say.
const ONLY_IN: [(&str, &[&str]); 7] = [
    ("env = \"ORGD_", &["config"]),
    ("spawn(", &["server/running.rs", "store/batch/queues.rs", "store/batch/worker.rs"]),
    (
        "Code::",
        &[
            "grpc/status.rs",
            "gateway/write/problem.rs",
            "gateway/client.rs",
            "gateway/share.rs",
            "cli/remote.rs",
            "cli/service.rs",
            // Names them, and chooses none.
            "proto/code.rs",
        ],
    ),
    ("StatusCode::", &["gateway", "server/readiness.rs", "cli/healthcheck.rs", "grpc/call.rs"]),
    ("fn may_access", &["domain/src/policy.rs"]),
    // All others say `crate::domain`, by which `ARROWS` knows it.
    ("orgd_domain", &["lib.rs"]),
    ("sea_orm", &["store"]),
];

/// A test that is left out silently, as the first long one was, and paths of one machine, which come into pages with
/// what a tool printed there. Written apart, so that this file has none.
const NOWHERE: [&str; 3] = [
    // But for what takes long, which a target of the Makefile runs.
    concat!("#[ig", "nore"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
];

/// The one reason for which a test may be left out of a common run.
const LONG: &str = concat!("#[ig", "nore = \"long: make ");

/// Pages that name the test of each thing that they promise, as `module::test`, and how many at least.
const PAGES_WITH_TESTS: [(&str, usize); 2] = [("SECURITY.md", 30), ("docs/RELIABILITY.md", 40)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that git knows or would add, with its text.
fn files() -> Vec<(String, String)> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let texts = names
        .lines()
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)));
    let texts: Vec<_> = texts.collect();
    assert!(texts.iter().any(|(name, _)| name == "src/lib.rs"), "the tests run in a checkout");
    texts
}

/// Rust files below a folder, by their paths in it.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let inside = |(name, text): (String, String)| {
        let name = name.strip_prefix(folder)?.strip_prefix('/')?.to_owned();
        (Path::new(&name).extension()? == "rs").then_some((name, text))
    };
    files().into_iter().filter_map(inside).collect()
}

/// The text without comments, which may name anything.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a text has a word that is not the end of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_inside = |before: &str| before.ends_with(|letter: char| letter.is_alphanumeric());
    text.match_indices(word).any(|(at, _)| !is_inside(text.split_at(at).0))
}

#[test]
fn rooms_name_only_the_rooms_that_they_may() {
    for (name, text) in rust_files("src") {
        let room = name.split('/').next().unwrap();
        for word in ARROWS.iter().filter(|(of, _)| *of == room).flat_map(|(_, words)| *words) {
            assert!(
                word.starts_with("crate::") || !has_word(&code(&text), word),
                "src/{name} names {word}"
            );
        }
    }
    for (module, named) in circles::named() {
        let room = module.split('/').next().unwrap();
        let is_of_room = |of: &str| of.trim_end_matches(".rs") == room;
        let words = ARROWS.iter().filter(|(of, _)| is_of_room(of)).flat_map(|(_, words)| *words);
        for word in words.filter_map(|word| word.strip_prefix("crate::")) {
            for name in &named {
                let other = name.split("::").next().unwrap();
                let is_free = other == room || TABLES.iter().any(|table| name.starts_with(table));
                let is_named = word.is_empty() || word == other;
                assert!(is_free || !is_named, "src/{module} names crate::{name}");
            }
        }
    }
}

#[test]
fn what_one_place_decides_is_decided_nowhere_else() {
    let of_domain =
        rust_files("domain").into_iter().map(|(name, text)| (format!("domain/{name}"), text));
    for (name, text) in rust_files("src").into_iter().chain(of_domain) {
        for (word, places) in ONLY_IN {
            let here = places.iter().any(|place| name.starts_with(place));
            assert!(here || !has_word(&code(&text), word), "{name} has {word}");
        }
    }
}

#[test]
fn every_file_says_what_it_holds_and_is_short() {
    for folder in [
        "src",
        "domain",
        "listener",
        "memory",
        "migrations",
        "shares",
        "tests",
        "benches",
        "examples",
        "fuzz",
    ] {
        for (name, text) in rust_files(folder) {
            assert!(text.starts_with("//! "), "{folder}/{name} does not begin with //!");
            let lines = text.lines().count();
            assert!(lines <= FILE_LINES_MAX, "{folder}/{name} has {lines} lines");
        }
    }
    assert!(fs::read_to_string(root().join("build.rs")).unwrap().starts_with("//! "));
}

/// A lint that is forbidden cannot be allowed again, and a package's lints are those of all its
/// targets: library, binary, build script, tests, benchmarks and examples. One package declares one
/// function of the C library.
#[test]
fn every_package_but_one_forbids_unsafe_code() {
    let manifest = |(name, text): (String, String)| {
        name.ends_with("Cargo.toml").then(|| (name, text.parse::<toml::Table>().unwrap()))
    };
    let manifests: BTreeMap<_, _> = files().into_iter().filter_map(manifest).collect();
    let forbids = |lints: Option<&toml::Value>| {
        let lint = lints.and_then(|lints| lints.get("rust")?.get("unsafe_code")?.as_str());
        lint == Some("forbid")
    };
    let of_workspace = manifests["Cargo.toml"]["workspace"].get("lints");
    assert!(forbids(of_workspace), "the workspace's lints");
    for (name, manifest) in &manifests {
        let lints = manifest.get("lints");
        let inherits = lints.and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
        let forbids = forbids(lints) || (inherits && name != "fuzz/Cargo.toml");
        assert_eq!(forbids, name != "memory/Cargo.toml", "{name}");
    }
    assert_eq!(manifests.len(), 7, "{:?}", manifests.keys());
    let of_memory = |(name, _): &(String, String)| name.starts_with("memory/");
    let memory = files().into_iter().filter(of_memory).map(|(_, text)| text).collect::<String>();
    assert_eq!(memory.matches("unsafe extern").count(), 1, "{memory}");
    assert_eq!(memory.matches("unsafe {").count(), 0, "{memory}");
}

#[test]
fn no_test_is_left_out_silently_and_nothing_names_a_machine() {
    for (name, text) in files() {
        let text = text.replace(LONG, "");
        for mark in NOWHERE {
            assert!(!text.contains(mark), "{name} has {mark}");
        }
    }
}

/// Every test below `tests/`, as its test program names it; of the integration tests without the
/// program's name.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (file, text) in rust_files("tests") {
        let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = path.strip_prefix("it/").unwrap_or(path).replace('/', "::");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let (true, Some((name, _))) = (is_test, function.and_then(|f| f.split_once('('))) {
                tests.insert(format!("{module}::{name}"));
                is_test = false;
            }
        }
    }
    assert!(tests.contains("tidy::every_test_that_a_page_names_exists"), "{tests:?}");
    tests
}

#[test]
fn every_test_that_a_page_names_exists() {
    let (tests, pages) = (tests(), files());
    for (page, named_min) in PAGES_WITH_TESTS {
        let Some((_, text)) = pages.iter().find(|(name, _)| name == page) else { continue };
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
        let named: Vec<&str> =
            quoted.filter(|text| text.contains("::") && text.chars().all(is_path)).collect();
        assert!(named.len() >= named_min, "{page} names {} tests", named.len());
        for test in named {
            assert!(tests.contains(test), "{page} names {test}, which is no test");
        }
    }
}
