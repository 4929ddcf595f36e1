//! Python: a gRPC client in another language, and small programs of tests.

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use super::disclosure::assert_tells_nothing;

/// Python with the packages of `tests/requirements.txt`.
pub fn interpreter() -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(
        path.exists(),
        "the tests need Python's packages: run `make tools`, which installs them"
    );
    Command::new(path)
}

/// Calls the service with grpcio, which learns of it by reflection alone. Answers the message, or
/// the status as `{"code", "message", "reason"}`.
pub fn python(method: &str, addr: SocketAddr, token: &str, message: &str) -> Value {
    let output = interpreter()
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/call.py"))
        .args([method, &addr.to_string(), token, message])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    if answer.get("code").is_some() {
        assert_tells_nothing(&answer.to_string());
    }
    answer
}
