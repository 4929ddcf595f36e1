//! No circle of imports inside a room: whoever reads a module can read what it needs first.
//!
//! A module is a file, a room is a folder below `src/` or a workspace crate. A module names another by a
//! `use` line or by a path in its code (`crate::`, `super::`, `self::`, or a child's name). Three rules:
//!
//! - A child that names an item of its parent counts, and so does a parent that uses its child: where both
//!   do, the item stands in the wrong file. Without this rule a large `mod.rs` would hide every circle.
//! - `mod child;` and `pub use child::Item;` do not count: they are the room's table of contents.
//! - An item that a module only imports or passes on belongs to the module that has it.
//!
//! Methods cannot be seen here: `self.queue.push(…)` names no module.

use std::collections::{BTreeMap, BTreeSet};

/// A module's path: below `src/` from the room on, in another crate from the crate's name on.
type Path = Vec<String>;

/// A module: what it names, and where the names come from that it imports.
#[derive(Default)]
struct Module {
    named: BTreeSet<Path>,
    /// Nothing for what comes from another crate.
    imports: BTreeMap<String, Option<Path>>,
}

/// All modules of a crate.
struct Crate(BTreeMap<Path, Module>);

impl Crate {
    /// `root` is the path of the crate itself, which is empty for that in `src/`.
    fn read(root: &[String], files: Vec<(String, String)>) -> Self {
        let is_code = |file: &str| file != "main.rs" && !file.ends_with("tests.rs");
        let files: Vec<(Path, String)> = files
            .into_iter()
            .filter(|(file, _)| is_code(file))
            .map(|(file, text)| (path_of(root, &file), text))
            .collect();
        let paths: BTreeSet<Path> = files.iter().map(|(path, _)| path.clone()).collect();
        let read = |(path, text): (Path, String)| {
            let module = Module::read(&Place { root, path: &path, paths: &paths }, &tokens(&text));
            (path, module)
        };
        Self(files.into_iter().map(read).collect())
    }

    /// The module that has what a path names.
    fn resolve(&self, path: &[String]) -> Option<Path> {
        let is_module = |length: &usize| self.0.contains_key(&path[..*length]);
        let length = (0..=path.len()).rev().find(is_module)?;
        let (module, rest) = path.split_at(length);
        let imported = rest.first().and_then(|name| self.0[module].imports.get(name));
        match imported {
            Some(Some(from)) if from != path => self.resolve(&[from, &rest[1..]].concat()),
            Some(None) => None,
            _ => Some(module.to_vec()),
        }
    }

    /// Who names whom, among the modules of one room.
    fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let arrows = |(from, module): (&Path, &Module)| {
            let named = module.named.iter().filter_map(|path| self.resolve(path));
            let inside = named.filter(|to| to != from && to.first() == from.first());
            (from.join("::"), inside.map(|to| to.join("::")).collect())
        };
        self.0.iter().map(arrows).collect()
    }
}

impl Module {
    fn read(place: &Place<'_>, tokens: &[&str]) -> Self {
        let mut module = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            let before = at.checked_sub(1).map_or("", |before| tokens[before]);
            let is_use = tokens[at] == "use";
            let is_path = before != "::" && tokens.get(at + 1) == Some(&"::");
            if !is_use && !is_path {
                at += 1;
                continue;
            }
            // `pub(in crate::room)` says who may see something, and uses nothing.
            let is_visibility = tokens[..at].ends_with(&["pub", "(", "in"]);
            at += usize::from(is_use);
            for (name, named) in tree(tokens, &mut at) {
                let named = place.absolute(&named);
                if !(is_visibility || is_use && ["pub", ")"].contains(&before)) {
                    module.named.extend(named.clone());
                }
                if is_use {
                    module.imports.insert(name, named);
                }
            }
        }
        module
    }
}

/// What each module below `src/` names of that crate, however its `use` lines are nested: paths from the room on.
pub(super) fn named() -> BTreeMap<String, BTreeSet<String>> {
    let modules = Crate::read(&[], super::rust_files("src")).0;
    let named = |(path, module): (Path, Module)| {
        let imported = module.imports.into_values().flatten();
        (
            path.join("/"),
            module.named.into_iter().chain(imported).map(|path| path.join("::")).collect(),
        )
    };
    modules.into_iter().map(named).collect()
}

fn path_of(root: &[String], file: &str) -> Path {
    let words = file.trim_end_matches(".rs").split('/').map(str::to_owned);
    let mut path: Path = root.iter().cloned().chain(words).collect();
    path.pop_if(|last| last == "mod" || last == "lib");
    path
}

/// Where a path is written: the module, and all modules of its crate.
struct Place<'a> {
    root: &'a [String],
    path: &'a [String],
    paths: &'a BTreeSet<Path>,
}

impl Place<'_> {
    /// The path as it is from anywhere; none if it leads out of the crate.
    fn absolute(&self, named: &[&str]) -> Option<Path> {
        let mut path = self.path.to_vec();
        let mut rest = named;
        match named.split_first()? {
            (&"crate", after) => (path, rest) = (self.root.to_vec(), after),
            (&"self", after) => rest = after,
            (&"super", _) => {}
            (child, _) => {
                let child = [self.path, &[(*child).to_owned()]].concat();
                self.paths.contains(&child).then_some(())?;
            }
        }
        while let Some((&"super", after)) = rest.split_first() {
            path.pop();
            rest = after;
        }
        path.extend(rest.iter().map(|word| (*word).to_owned()));
        Some(path)
    }
}

/// The paths that begin at a token, each with the name that it gives: `a::{b, c as d}` has two.
fn tree<'a>(tokens: &[&'a str], at: &mut usize) -> Vec<(String, Vec<&'a str>)> {
    let mut path = Vec::new();
    loop {
        if tokens[*at] == "{" {
            return group(tokens, at, &path);
        }
        path.push(tokens[*at]);
        *at += 1;
        if tokens.get(*at) != Some(&"::") {
            break;
        }
        *at += 1;
    }
    if path.len() > 1 {
        path.pop_if(|last| *last == "self");
    }
    let mut name = path.last().map(|name| (*name).to_owned()).unwrap_or_default();
    if tokens.get(*at) == Some(&"as") {
        tokens[*at + 1].clone_into(&mut name);
        *at += 2;
    }
    vec![(name, path)]
}

/// The paths of `{b, c::d}` behind a common beginning.
fn group<'a>(
    tokens: &[&'a str],
    at: &mut usize,
    beginning: &[&'a str],
) -> Vec<(String, Vec<&'a str>)> {
    let mut paths = Vec::new();
    *at += 1;
    while tokens[*at] != "}" {
        for (name, mut path) in tree(tokens, at) {
            let own = if path == ["self"] { Vec::new() } else { path.split_off(0) };
            let name = if own.is_empty() { beginning.last().unwrap().to_string() } else { name };
            paths.push((name, [beginning, &own].concat()));
        }
        *at += usize::from(tokens[*at] == ",");
    }
    *at += 1;
    paths
}

/// The words and signs of a file, without comments, texts and its unit tests.
fn tokens(text: &str) -> Vec<&str> {
    let mut rest = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(token_length(rest, first));
        if !first.is_whitespace() && !token.contains(['"', '\'']) && !token.starts_with("//") {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

fn token_length(rest: &str, first: char) -> usize {
    let up_to = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    match first {
        '/' if rest.starts_with("//") => up_to("\n", 2),
        'r' if rest.starts_with("r\"") => up_to("\"", 2),
        'r' if rest.starts_with("r#\"") => up_to("\"#", 3),
        '"' => {
            let mut is_escaped = false;
            let is_end = |letter: char| {
                let is_end = letter == '"' && !is_escaped;
                is_escaped = letter == '\\' && !is_escaped;
                is_end
            };
            rest[1..].find(is_end).map_or(rest.len(), |at| at + 2)
        }
        '\'' if rest.starts_with("'\\") => up_to("'", 3),
        // A letter in quotes, or a lifetime.
        '\'' => match rest.char_indices().nth(2) {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        ':' if rest.starts_with("::") => 2,
        _ if first.is_alphanumeric() || first == '_' => rest
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(rest.len()),
        _ => first.len_utf8(),
    }
}

/// The shortest way along arrows from a module back to itself.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>, module: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![module.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in &arrows[way.last().unwrap()] {
                let way = [&way[..], std::slice::from_ref(next)].concat();
                if next == module {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// The modules that reach each other, with one circle among them.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<Vec<String>, String> {
    let reached = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = arrows[from].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.clone()) {
                next.extend(&arrows[module]);
            }
        }
        reached
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|module| (module, reached(module))).collect();
    let around = |module: &String| {
        let circle = circle(arrows, module)?.join(" → ");
        let members = reach[module].iter().filter(|other| reach[other].contains(module));
        Some((members.cloned().collect(), circle))
    };
    arrows.keys().filter_map(around).collect()
}

#[test]
fn no_room_has_a_circle_of_imports() {
    let all = super::files();
    let roots = all.iter().filter_map(|(name, _)| name.strip_suffix("src/lib.rs"));
    let circles = roots.flat_map(|root| {
        let files = super::rust_files(&format!("{root}src"));
        let root: Path = root.split_terminator('/').map(str::to_owned).collect();
        circles(&Crate::read(&root, files).arrows())
    });
    let found: BTreeMap<_, _> = circles.collect();
    assert!(found.is_empty(), "circles of imports: {found:#?}");
}

#[test]
fn a_circle_of_imports_is_found_and_named() {
    let files = [
        ("lib.rs", "pub mod room;"),
        ("room/mod.rs", "mod a; mod b; mod c; pub use a::{A, Other as Alias}; use c::C;"),
        (
            "room/a.rs",
            "use super::b::{self, B}; // crate::room::c\nconst TEXT: &str = \"super::c\";",
        ),
        ("room/b.rs", "fn b(alias: &super::Alias) -> char { '\"' }"),
        ("room/c.rs", "use std::fmt; fn c() { crate::room::A::new::<u8>() }"),
    ];
    let owned = files.map(|(file, text)| (file.to_owned(), text.to_owned()));
    let arrows = Crate::read(&[], owned.into()).arrows();
    let named = |module: &str| arrows[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(named("room"), ["room::c"]);
    assert_eq!(named("room::c"), ["room::a"]);
    let members = ["room::a", "room::b"].map(str::to_owned).to_vec();
    let circle = "room::b → room::a → room::b".to_owned();
    assert_eq!(circles(&arrows), BTreeMap::from([(members, circle)]));
}
