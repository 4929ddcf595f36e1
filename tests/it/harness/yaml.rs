//! YAML files of the checkout, as JSON.

use std::{fs, io::Write, path::Path, process::Stdio};

use serde_json::Value;

use super::interpreter;

/// The documents of a text, by Python: the compose tool may be written in it, so it is there anyway.
pub fn documents_of(yaml: &[u8]) -> Vec<Value> {
    let script =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let mut python = interpreter()
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(yaml).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "not YAML: {}", String::from_utf8_lossy(yaml));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The documents of a file.
pub fn documents(path: &str) -> Vec<Value> {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    documents_of(&fs::read(whole).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// The texts of a list; none where there is no list.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}
