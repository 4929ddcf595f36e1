//! How a process ends: by a signal, by a second one, or because a part of it failed.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{
    ADMINISTRATOR, OWN, PATIENCE, Service, interpreter, on_both_databases,
    patiently_on_both_databases,
};

#[tokio::test]
async fn a_stopping_service_ends_with_success_and_says_so() {
    on_both_databases(async |service| {
        for signal in ["TERM", "INT"] {
            let service = Service::start_beside(service.shared_database()).await;
            service.signal(signal);
            assert!(service.ended().await.success(), "{signal}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_while_the_service_stops() {
    patiently_on_both_databases(&[("ORGD_DRAIN_DEADLINE", "60s")], async |service| {
        let mut stream = service.begin_put(ADMINISTRATOR, 15, "").await;
        stream.write_all(b"{\"name\":").await.unwrap();
        service.signal("TERM");
        service.until_logged("stopping").await;
        assert_eq!(service.get_ops("/readyz").await.text(), "stopping\n");
        assert_eq!(service.get_ops("/livez").await.status(), 200);
        // New connections are not taken from then on when the listener is closed.
        let closing = async { while TcpStream::connect(service.http_addr()).await.is_ok() {} };
        timeout(PATIENCE, closing).await.expect("no new connections");
        stream.write_all(b"\"Last\"}").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let database = service.shared_database();
        assert!(service.ended().await.success());
        assert_eq!(database.name(OWN).await, "Last");
    })
    .await;
}

#[tokio::test]
async fn a_stopping_service_is_not_ready_and_serves_for_its_lame_duck_time() {
    let service = Service::over_sqlite(&[("ORGD_LAME_DUCK_TIME", "1h")]).await;
    let request = || HealthCheckRequest { service: String::new() };
    let mut watch =
        HealthClient::new(service.channel()).watch(request()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    service.signal("TERM");
    let next = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    assert_eq!(service.get_ops("/readyz").await.status(), 503);
    assert_eq!(service.get_ops("/livez").await.status(), 200);
    assert!(service.get_ops("/metrics").await.text().contains("\norgd_ready 0\n"));
    // New connections and requests, as balancers send them until they have looked again.
    let answer = service.put(OWN, ADMINISTRATOR, r#"{"name": "Lame duck"}"#).send().await;
    assert_eq!(answer.status(), 200);
    let status = HealthClient::new(service.channel()).check(request()).await.unwrap();
    assert_eq!(status.get_ref().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn health_watches_do_not_delay_the_stop() {
    let service = Service::over_sqlite(&[("ORGD_LAME_DUCK_TIME", "3s")]).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(service.channel()).watch(request).await.unwrap().into_inner();
    let told = Instant::now();
    service.signal("TERM");
    while let Ok(Some(_)) = watch.message().await {}
    assert!(service.ended().await.success());
    assert!(told.elapsed() >= Duration::from_secs(3), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_slow_body_does_not_hold_the_process_past_the_drains_deadline() {
    let settings = [("ORGD_DRAIN_DEADLINE", "1s"), ("ORGD_REQUEST_DEADLINE", "1h")];
    let service =
        Service::over_sqlite(&[&settings[..], &[("ORGD_STALL_TIMEOUT", "1h")]].concat()).await;
    let mut stream = service.begin_put(ADMINISTRATOR, 15, "").await;
    service.signal("TERM");
    service.until_logged("the drain's deadline has passed").await;
    assert!(service.ended().await.success());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let settings = [("ORGD_DRAIN_DEADLINE", "1h"), ("ORGD_LAME_DUCK_TIME", "1h")];
    let service = Service::over_sqlite(&settings).await;
    let _stream = service.begin_put(ADMINISTRATOR, 15, "").await;
    service.signal("TERM");
    service.until_logged("stopping").await;
    service.signal("TERM");
    service.until_logged("a second signal came").await;
    service.ended().await;
}

/// Ends the listening of another process's socket, as nothing but a fault could.
const SHUT_DOWN: &str = "
import ctypes, os, socket, sys
pid, port = int(sys.argv[1]), int(sys.argv[2])
libc, pidfd_getfd = ctypes.CDLL(None, use_errno=True), 438
pidfd = os.pidfd_open(pid)
for name in os.listdir(f'/proc/{pid}/fd'):
    fd = libc.syscall(pidfd_getfd, pidfd, int(name), 0)
    try:
        with socket.socket(fileno=fd) as other:
            if other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) \\
                    and other.getsockname()[1] == port:
                other.shutdown(socket.SHUT_RDWR)
                print('shut down')
    except (OSError, IndexError):
        pass
";

#[tokio::test]
async fn a_listener_that_fails_ends_the_process_with_a_sentence() {
    for name in ["grpc", "http", "ops"] {
        let service = Service::over_sqlite(&[("ORGD_LAME_DUCK_TIME", "1h")]).await;
        let addr = match name {
            "grpc" => service.grpc_addr(),
            "http" => service.http_addr(),
            _ => service.ops_addr(),
        };
        let output = interpreter()
            .args(["-c", SHUT_DOWN, &service.pid().to_string(), &addr.port().to_string()])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed.trim(), "shut down", "{}", String::from_utf8_lossy(&output.stderr));
        service.until_logged(&format!("the {name} listener has failed")).await;
        assert_eq!(service.ended().await.code(), Some(1), "{name}");
    }
}
