//! The limits of a connection: its age, its idle time, its streams, and the frames that a client may send.

use std::{error::Error, time::Duration};

use orgd::proto::v1::GetOrganizationRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::harness::{
    OWN, PATIENCE, RawHttp2, Service, USER, authorized, is_answered, kind, on_both_databases,
    until_closed,
};

/// A connection on which a request was answered.
async fn used(service: &Service) -> TcpStream {
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    assert!(is_answered(&mut stream).await);
    stream
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let service = Service::over_sqlite(&[("ORGD_IDLE_TIMEOUT", "1s")]).await;
    until_closed(&mut used(&service).await).await;
}

#[tokio::test]
async fn an_old_connection_takes_no_new_requests_and_ends_after_its_grace() {
    // The grace is more than any of the requests takes.
    let settings = [("ORGD_CONNECTION_AGE_MAX", "1s"), ("ORGD_CONNECTION_AGE_GRACE", "4s")];
    let service = Service::over_sqlite(&settings).await;
    let mut kept = used(&service).await;
    let mut watching = RawHttp2::connect(service.grpc_addr()).await;
    assert!(watching.watch_health(1).await);
    let busy = async {
        while is_answered(&mut kept).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let old = async {
        let goodbye = watching.next_of(kind::GOAWAY).await.expect("GOAWAY comes before the end");
        assert_eq!(goodbye.error_code(), 0);
        // The stream has no end of its own.
        while watching.next().await.is_some() {}
    };
    timeout(PATIENCE, async { tokio::join!(busy, old) }).await.unwrap();
    // A client of gRPC connects anew, and nothing that it sends is lost. What it has not sent, because
    // it heard of the connection's end just then, it may send again: tonic's does not do so by itself.
    let mut client = service.grpc();
    for _ in 0..30 {
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        while let Err(status) = client.get(authorized(USER, message)).await {
            assert!(is_unsent(&status), "{status:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a call failed within the client, before anything of it was sent.
fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[tokio::test]
async fn a_client_of_http2_that_does_not_answer_pings_is_closed() {
    let service = Service::over_sqlite(&[("ORGD_STALL_TIMEOUT", "1s")]).await;
    let mut watching = RawHttp2::connect(service.grpc_addr()).await;
    assert!(watching.watch_health(1).await);
    watching.next_of(kind::PING).await.expect("a ping comes before the end");
    while watching.next().await.is_some() {}
}

#[tokio::test]
async fn a_stream_over_the_limit_is_refused() {
    let service = Service::over_sqlite(&[("ORGD_STREAMS_MAX", "3")]).await;
    let mut client = RawHttp2::connect(service.grpc_addr()).await;
    for stream in [1, 3, 5, 7] {
        assert!(client.watch_health(stream).await);
    }
    let refused = client.next_of(kind::RST_STREAM).await.expect("a refusal");
    assert_eq!((refused.stream, refused.error_code()), (7, 7), "REFUSED_STREAM, of the fourth");
}

#[tokio::test]
async fn a_client_that_makes_the_service_reset_streams_is_closed() {
    let service = Service::over_sqlite(&[]).await;
    let mut client = RawHttp2::connect(service.grpc_addr()).await;
    let until_goodbye = async {
        for first in (1..).step_by(100) {
            for stream in (first..first + 20).step_by(2) {
                // A window that grows too large is an error of the stream (CVE-2025-8671).
                client.call(stream, "/x/y", None).await;
                client.send(kind::WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes()).await;
            }
            // A client that lets few be answered is closed sooner.
            for stream in (first + 20..first + 100).step_by(2) {
                client.call(stream, "/grpc.health.v1.Health/Check", Some(&[])).await;
            }
            let mut unanswered = 40;
            while unanswered > 0 {
                let frame = client.next().await?;
                if frame.kind == kind::GOAWAY {
                    return Some(frame);
                }
                // The message of an answer.
                unanswered -= u32::from(frame.kind == kind::DATA);
            }
        }
        None
    };
    let goodbye = until_goodbye.await.expect("GOAWAY comes before the end");
    assert_eq!(goodbye.error_code(), 11, "ENHANCE_YOUR_CALM");
    service.assert_serves().await;
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_is_closed() {
    let service = Service::over_sqlite(&[]).await;
    for (kind, payload) in [(kind::PING, &[0; 8][..]), (kind::SETTINGS, &[])] {
        let mut client = RawHttp2::connect(service.grpc_addr()).await;
        // Not a client that says nothing: one with a request under way.
        assert!(client.watch_health(1).await);
        let flood = async {
            let mut sent: u64 = 0;
            loop {
                for _ in 0..100 {
                    if !client.send(kind, 0, 0, payload).await {
                        return sent;
                    }
                    sent += 1;
                }
                // Takes the answers, as a client that has not stalled does.
                while let Ok(frame) = timeout(Duration::from_millis(1), client.next()).await {
                    if frame.is_none() {
                        return sent;
                    }
                }
            }
        };
        let sent = timeout(PATIENCE, flood).await.expect("the flood is ended");
        assert!(sent > 10_000, "{sent} frames are no flood yet");
        service.assert_serves().await;
    }
}

#[tokio::test]
async fn http2_limits_are_announced() {
    on_both_databases(async |service| {
        for addr in [service.grpc_addr(), service.http_addr()] {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await
                .unwrap();
            let mut head = [0; 9];
            timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
            assert_eq!(head[3], 4, "the first frame is SETTINGS");
            let mut settings = vec![0; usize::from(head[2])];
            timeout(PATIENCE, stream.read_exact(&mut settings)).await.unwrap().unwrap();
            let setting = |id: u16| {
                let found = settings.chunks(6).find(|entry| entry[..2] == id.to_be_bytes());
                found.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
            };
            assert_eq!(setting(3), Some(100), "SETTINGS_MAX_CONCURRENT_STREAMS");
            assert_eq!(setting(6), Some(16 * 1024), "SETTINGS_MAX_HEADER_LIST_SIZE");
        }
    })
    .await;
}
