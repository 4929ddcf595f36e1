//! The Debian package (`make package`): what it installs, and what it leaves behind. It goes below a root of its own,
//! so that this machine stays as it is.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::orgd_with;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SETTINGS: &str = "etc/orgd/orgd.env";
const UNIT: [&str; 2] = ["usr/lib/systemd/system/orgd.service", "lib/systemd/system/orgd.service"];

/// What the package has at least, with the modes.
const FILES: [(&str, u32); 8] = [
    ("usr/bin/orgd", 0o755),
    ("usr/share/man/man1/orgd.1.gz", 0o644),
    ("usr/share/man/man1/orgd-serve.1.gz", 0o644),
    ("usr/share/bash-completion/completions/orgd", 0o644),
    ("usr/share/fish/vendor_completions.d/orgd.fish", 0o644),
    ("usr/share/zsh/vendor-completions/_orgd", 0o644),
    ("usr/share/doc/orgd/copyright", 0o644),
    (SETTINGS, 0o600),
];

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

/// What `make package` has built.
fn package() -> PathBuf {
    let architecture = said(Command::new("dpkg").arg("--print-architecture"));
    let name = format!("orgd_{}-1_{}.deb", env!("CARGO_PKG_VERSION"), architecture.trim());
    let package = Path::new(ROOT).join("target/debian").join(name);
    assert!(package.exists(), "{}: run `make package`", package.display());
    package
}

/// A root with nothing but a list of packages, on which ours depends.
struct Root(TempDir);

impl Root {
    fn new(package: &Path) -> Self {
        let root = Self(TempDir::new().unwrap());
        let state = root.path("var/lib/dpkg");
        // And folders that are systemd's.
        let folders = ["info", "updates", "../systemd", "../../../etc/systemd/system"];
        for folder in folders {
            fs::create_dir_all(state.join(folder)).unwrap();
        }
        let depends = said(Command::new("dpkg-deb").arg("--field").arg(package).arg("Depends"));
        assert!(depends.contains("libc6 (>= "), "{depends}");
        let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
        // As they are here, so that ours is refused where it could not run.
        let format = "Package: ${Package}\nStatus: install ok installed\nMaintainer: x\nDescription: x\n\
            Version: ${Version}\nArchitecture: ${Architecture}\nMulti-Arch: same\n\n";
        let query = ["--show", "--showformat", format];
        let installed = said(Command::new("dpkg-query").args(query).args(names));
        fs::write(state.join("status"), installed).unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dpkg(&self, words: &[&str]) -> String {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(self.0.path()).arg("--force-script-chrootless");
        said(dpkg.args(words))
    }

    /// Every file and folder but those of dpkg itself.
    fn tree(&self) -> BTreeSet<String> {
        let find = [".", "-path", "./var/lib/dpkg", "-prune", "-o", "-print"];
        let found = said(Command::new("find").args(find).current_dir(self.0.path()));
        let is_log = |path: &&str| path.starts_with("./var/log");
        found.lines().filter(|path| !is_log(path)).map(str::to_owned).collect()
    }
}

/// Whether systemd takes the unit as it is installed.
fn check_unit(root: &Root) {
    let unit = UNIT.map(|unit| root.path(unit)).into_iter().find(|unit| unit.exists()).unwrap();
    let ours = fs::read_to_string(Path::new(ROOT).join("deploy/systemd/orgd.service")).unwrap();
    let text = fs::read_to_string(&unit).unwrap();
    assert_eq!(text, ours);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("systemd-analyze is NOT run: it is not installed");
    }
    // It looks for the binary below its own root.
    let binary = root.path("usr/bin/orgd");
    let here = root.path("orgd.service");
    fs::write(&here, text.replace("/usr/bin/orgd", binary.to_str().unwrap())).unwrap();
    said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here));
    fs::remove_file(here).unwrap();
}

/// Why the package cannot be installed here.
fn hindrance() -> Option<&'static str> {
    if Command::new("dpkg").arg("--version").output().is_err() {
        return Some("there is no dpkg");
    }
    let is_root = said(Command::new("id").arg("-u")).trim() == "0";
    (!is_root).then_some("only root can install a package")
}

#[test]
#[ignore = "long: make package"]
fn the_package_brings_what_its_page_says_and_leaves_nothing() {
    if let Some(why) = hindrance() {
        return eprintln!("the package is NOT installed here: {why}");
    }
    let package = package();
    let root = Root::new(&package);
    let before = root.tree();
    let package = package.to_str().unwrap();
    root.dpkg(&["--install", package]);

    let version = said(Command::new(root.path("usr/bin/orgd")).arg("--version"));
    assert_eq!(version.trim(), concat!("orgd ", env!("CARGO_PKG_VERSION")));
    for (path, mode) in FILES {
        let metadata = fs::metadata(root.path(path)).unwrap_or_else(|_| panic!("no {path}"));
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
    }
    let gunzip = ["--decompress", "--stdout"];
    let page = root.path("usr/share/man/man1/orgd-serve.1.gz");
    assert!(said(Command::new("gzip").args(gunzip).arg(page)).contains(".TH orgd-serve 1"));
    check_unit(&root);
    // It neither starts nor is enabled by itself.
    assert!(!root.tree().iter().any(|path| path.contains(".wants/")), "{:?}", root.tree());

    // What an operator wrote stays, whatever is installed over it, and until the package is purged.
    fs::write(root.path(SETTINGS), "ORGD_LOG=warn\n").unwrap();
    root.dpkg(&["--force-confdef", "--install", package]);
    root.dpkg(&["--remove", "orgd"]);
    assert!(!root.path("usr/bin/orgd").exists());
    assert_eq!(fs::read_to_string(root.path(SETTINGS)).unwrap(), "ORGD_LOG=warn\n");
    root.dpkg(&["--purge", "orgd"]);
    let left: Vec<_> = root.tree().difference(&before).cloned().collect();
    assert_eq!(left, [""; 0]);
}

/// Each line of the example is a setting that orgd takes.
#[test]
fn the_example_of_settings_is_taken() {
    let example = fs::read_to_string(Path::new(ROOT).join("deploy/systemd/orgd.env")).unwrap();
    let lines = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let settings: Vec<_> = lines.filter(|(name, _)| name.starts_with("ORGD_")).collect();
    assert!(settings.len() >= 4, "{example}");
    assert!(!example.lines().any(|line| line.starts_with("ORGD_")), "nothing is set by itself");
    let shown = orgd_with(&settings, "config");
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    for (name, _) in settings {
        assert!(shown.stdout.contains(name), "{name}: {}", shown.stdout);
    }
}
