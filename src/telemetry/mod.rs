//! Logs, metrics and traces. No secret, no body and no value of a field is in any of them.

mod json;
pub mod metrics;
mod request;
mod trace_context;

use std::{
    io::{self, BufWriter, IsTerminal, Write, stderr},
    iter, thread,
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result};
use opentelemetry::{Key, KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    resource::{ResourceDetector, SdkProvidedResourceDetector},
    trace::{Sampler, SdkTracerProvider},
};
pub use request::RequestRecord;
pub use trace_context::TraceContext;
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, FilterFn, Targets},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::config::{LogArgs, LogFormat, TraceArgs};

/// More lines are dropped and counted, so that a reader that is stuck does not stop the service.
const WAITING_LINES_MAX: usize = 16_384;
/// Bytes that are written at once at most.
const WRITE_BYTES: usize = 64 * 1024;
/// The thread that writes rests when no line waits: to wake it costs more than a line.
const WRITE_REST: Duration = Duration::from_millis(10);

/// An error with all that caused it, for the log.
#[must_use]
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    set_filter: Box<dyn Fn(EnvFilter) -> Result<()>>,
    /// Writes what waits when it is dropped.
    _log: WorkerGuard,
}

impl Telemetry {
    /// Logs to standard error; standard output is for what a command answers. Needs a runtime, for the exporter.
    pub fn start(log: &LogArgs, traces: Option<&TraceArgs>) -> Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(log)?);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES_MAX)
            .finish(Unhurried(BufWriter::with_capacity(WRITE_BYTES, stderr())));
        metrics::Metrics::start()?;
        metrics::count_dropped_lines(writer.error_counter());
        let traces = traces.filter(|traces| !traces.otlp_endpoint.is_empty());
        let provider = traces.map(provider).transpose()?;
        let exported = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("orgd"))
                // Where in the source a span was made tells its reader nothing.
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(Targets::new().with_target("orgd", LevelFilter::DEBUG))
        });
        tracing_subscriber::registry()
            .with(exported)
            .with(lines(log.log_format, writer).with_filter(filter.and(discreet())))
            .try_init()
            .context("logs are set up already")?;
        trace_context::set(traces.map(|traces| traces.trace_remote_parents));
        let set_filter = Box::new(move |filter| Ok(handle.reload(filter)?));
        Ok(Self { traces: provider, set_filter, _log: guard })
    }

    pub fn set_filter(&self, log: &LogArgs) -> Result<()> {
        (self.set_filter)(filter(log)?)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn filter(log: &LogArgs) -> Result<EnvFilter> {
    log.log.parse().with_context(|| format!("--log {} is not a filter", log.log))
}

/// Silences what would have text of the database's URL, or of a file of passwords, in its lines.
fn discreet() -> FilterFn {
    let is_shown: fn(&Metadata<'_>) -> bool =
        |metadata| !metadata.target().starts_with("sqlx_postgres::options");
    FilterFn::new(is_shown).with_max_level_hint(LevelFilter::TRACE)
}

struct Unhurried<W>(W);

impl<W: Write> Write for Unhurried<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    #[expect(clippy::disallowed_methods, reason = "on the thread that writes, and nothing else")]
    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        thread::sleep(WRITE_REST);
        flushed
    }
}

fn lines<S>(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'lookup> tracing_subscriber::registry::LookupSpan<'lookup>,
{
    // As commands have colours: by the terminal, NO_COLOR and the like.
    let has_colours = AutoStream::choice(&stderr()) != ColorChoice::Never;
    let layer = fmt::layer().with_writer(writer).with_ansi(has_colours);
    match format {
        LogFormat::Auto if stderr().is_terminal() => layer.boxed(),
        LogFormat::Text => layer.boxed(),
        LogFormat::Auto | LogFormat::Json => {
            layer.fmt_fields(json::JsonMembers).event_format(json::JsonLine).boxed()
        }
    }
}

fn provider(traces: &TraceArgs) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&traces.otlp_endpoint);
    let exporter = exporter.build().context("cannot send traces to --otlp-endpoint")?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    // What OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say; else the SDK finds a name by itself.
    let name = SdkProvidedResourceDetector.detect().get(&Key::from_static_str("service.name"));
    let name = name.filter(|name| !name.as_str().starts_with("unknown_service"));
    let name = name.unwrap_or_else(|| "orgd".into());
    let resource = Resource::builder().with_service_name(name).with_attribute(version).build();
    let sampler = Sampler::TraceIdRatioBased(traces.trace_sample_ratio);
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(resource)
        .build())
}
