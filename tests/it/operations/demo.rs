//! `orgd demo`: its lines, pasted into a shell as a reader would, answer as docs/API.md says.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{
    ADMINISTRATOR, ANY_PORT, DOCUMENTED_HEADERS, LOGGED, Request, Service, python,
};

#[tokio::test]
async fn the_printed_curl_lines_answer_as_documented() {
    let words = ["demo", "--grpc-addr", ANY_PORT, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];
    let mut demo = Service::spawn(&words, &[LOGGED]);
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

/// The commands of README's example and what each prints there.
fn of_readme() -> Vec<(String, String)> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2).filter_map(|block| {
        let (command, printed) = block.strip_prefix("console\n$ ")?.split_once('\n')?;
        let is_of_example = command.starts_with("curl") || command.starts_with("grpcurl");
        is_of_example.then(|| (command.to_owned(), printed.to_owned()))
    });
    blocks.collect()
}

/// The same without what differs from one run to the next: the values of these names.
fn without_values(text: &str) -> String {
    let mut text = text.replace('\r', "").trim_end().to_owned();
    for before in [
        "X-Request-Id: ",
        "Date: ",
        "\"requestId\":\"",
        "\"dateCreated\":\"",
        "\"dateModified\":\"",
    ] {
        let end = |rest: &str| rest.find(['\n', '"']).unwrap_or(rest.len());
        let parts: Vec<_> = text.split(before).collect();
        let others = parts[1..].iter().map(|rest| rest.get(end(rest)..).unwrap_or_default());
        text = parts[..1].iter().copied().chain(others).collect::<Vec<_>>().join(before);
    }
    text
}

#[tokio::test]
async fn following_the_readme_prints_what_it_says() {
    let words = ["demo", "--grpc-addr", ANY_PORT, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];
    let mut demo = Service::spawn(&words, &[LOGGED]);
    // Once the last line of the banner is there, it is ready.
    demo.stdout().lines().map(Result::unwrap).find(|line| line.contains("readyz")).unwrap();
    let [first, refused, grpc] = of_readme().try_into().unwrap();
    for (command, printed) in [first, refused] {
        let command = command.replace("127.0.0.1:8080", &demo.http_addr().to_string());
        let output = Command::new("sh").args(["-c", &format!("{command} -s")]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert_eq!(without_values(&answer), without_values(&printed), "{command}");
    }
    // grpcurl is in no registry of packages here: another client sends what the line says.
    let (command, printed) = grpc;
    assert!(command.ends_with(" 127.0.0.1:50051 organization.v1.OrganizationService/Update"));
    let message = command.split('\'').find(|word| word.starts_with('{')).unwrap();
    let (_, token) = command.split_once("Bearer ").unwrap();
    let token = token.split('\'').next().unwrap();
    let answer = python("Update", demo.grpc_addr(), token, message);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let same = [&answer, &printed].map(|value| without_values(&value.to_string()));
    assert_eq!(same[0], same[1]);
}

/// As somebody sees it who starts it for the first time.
#[tokio::test]
async fn the_demo_prints_its_examples_and_the_page_to_try_and_logs_nothing() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_orgd"))
        .args(["demo", "--grpc-addr", ANY_PORT, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT])
        .env("ORGD_LAME_DUCK_TIME", "0s")
        .env_remove("ORGD_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.starts_with("orgd demo: "), "{first}");
    let page = lines.find_map(|line| Some(line.trim().strip_suffix("/docs")?.to_owned())).unwrap();
    let addr = page.strip_prefix("http://").unwrap().parse().unwrap();
    let answer = Request::new(addr, "GET", "/docs").send().await;
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    // Who opens the root is told where the page is.
    let root = Request::new(addr, "GET", "/").send().await;
    assert_eq!((root.status(), root.reason().as_str()), (404, "ROUTE_NOT_FOUND"));
    assert!(root.json()["detail"].as_str().unwrap().contains("page at /docs"), "{}", root.text());
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()),
        (Some(0), "")
    );
}

#[test]
fn the_demo_listens_on_loopback_only() {
    let refused = crate::harness::orgd("", "demo --http-addr 0.0.0.0:0");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
}
