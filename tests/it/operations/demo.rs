//! `orgd demo`: its lines, pasted into a shell as a reader would, answer as docs/API.md says.

use std::{io::BufRead, process::Command};

use crate::harness::{ADMINISTRATOR, DOCUMENTED_HEADERS, Service, python};

#[tokio::test]
async fn the_printed_curl_lines_answer_as_documented() {
    let any = "127.0.0.1:0";
    let mut demo =
        Service::spawn(&["demo", "--grpc-addr", any, "--http-addr", any, "--ops-addr", any], &[]);
    let lines: Vec<String> = demo
        .stdout()
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.contains("readyz"))
        .collect();
    let puts: Vec<&String> = lines.iter().filter(|line| line.contains("curl -i -X PUT")).collect();
    assert_eq!(puts.len(), 2);
    for (line, id) in puts.into_iter().zip([90, 94]) {
        let output = Command::new("sh").args(["-c", &format!("{line} -s")]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{{\"id\": {id}}}")), "{answer}");
        for (name, value) in DOCUMENTED_HEADERS {
            let line = format!("\r\n{name}: {value}\r\n").to_lowercase();
            assert_eq!(answer.to_lowercase().matches(&line).count(), 1, "{name} in {answer}");
        }
    }

    let grpcurl = lines.iter().find(|line| line.contains("grpcurl")).unwrap();
    assert!(grpcurl.contains(&demo.grpc_addr().to_string()) && grpcurl.contains(ADMINISTRATOR));
    let message = grpcurl.split('\'').find(|word| word.starts_with('{')).unwrap();
    let answer = python("Update", demo.grpc_addr(), ADMINISTRATOR, message);
    assert_eq!(answer["subscriptionId"], "enterprise");

    demo.signal("INT");
    assert!(demo.ended().await.success());
}

#[test]
fn the_demo_listens_on_loopback_only() {
    let refused = crate::harness::orgd("", "demo --http-addr 0.0.0.0:0");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
}
