//! The gRPC API: authenticate, convert, call one use case, convert back. It decides nothing on rights or values,
//! and of the codes of gRPC, only `status` chooses one.

mod call;
mod checks;
#[doc(hidden)] // Public for the benchmarks and the fuzzing.
pub mod convert;
mod in_process;
mod limits;
mod method;
mod organization;
#[doc(hidden)] // Public for the fuzzing.
pub mod page;
#[doc(hidden)] // Public for the fuzzing.
pub mod status;

pub use call::{OrganizationGrpc, count_other};
use http::Response;
pub use in_process::InProcess;
pub use limits::{CallLimits, PrincipalLimits};
use tonic::{body::Body, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::proto::{FILE_DESCRIPTOR_SET, v1::organization_service_server::SERVICE_NAME};

/// The services of the gRPC listener beside ours: health, and reflection in both versions.
pub fn other_services() -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // No service of ours names the types of a status's details, with which clients decode them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((routes, reporter))
}

pub async fn unknown_service() -> Response<Body> {
    status::unknown_service().into_http()
}

pub async fn report_health(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", SERVICE_NAME] {
        reporter.set_service_status(service, status).await;
    }
}

/// Ends the streams of health watches, which would else last to the end of the drain.
pub async fn end_health_watches(mut reporter: HealthReporter) {
    for service in ["", SERVICE_NAME] {
        reporter.clear_service_status(service).await;
    }
}
