//! A receiver of traces, as operators have one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
    trace::v1::{ResourceSpans, Span},
};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::PATIENCE;

/// A receiver of traces.
#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    /// Receives on a port of its own, as long as the runtime lives.
    pub async fn start() -> (Self, String) {
        let receiver = Self::default();
        let router = Routes::new(TraceServiceServer::new(receiver.clone())).into_axum_router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new()).http2_only();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (receiver, url)
    }

    pub fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let scopes = received.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The text attributes of whoever sent the last spans.
    pub fn sender(&self) -> BTreeMap<String, String> {
        let received = self.0.lock().unwrap();
        let resource = received.last().and_then(|spans| spans.resource.clone()).unwrap_or_default();
        let text = |value: Option<any_value::Value>| match value {
            Some(any_value::Value::StringValue(text)) => Some(text),
            _ => None,
        };
        let pairs = resource.attributes.into_iter();
        pairs.filter_map(|pair| Some((pair.key, text(pair.value?.value)?))).collect()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The span of a name whose parent is this one, once it has come.
    pub async fn span(&self, name: &str, parent: &[u8]) -> Span {
        let finding = async {
            loop {
                let spans = self.spans();
                let is_it = |span: &&Span| span.name == name && span.parent_span_id == parent;
                if let Some(span) = spans.iter().find(is_it) {
                    return span.clone();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, finding).await;
        found.unwrap_or_else(|_| panic!("no {name}: {:#?}", self.0.lock().unwrap()))
    }
}
