//! The gRPC door: authenticate, convert, call one use case, convert back.
//!
//! Architecture invariant: no decision on rights or values is made here, and only `status` chooses
//! codes.

mod call;
#[doc(hidden)] // Public for the benchmarks and the fuzzing.
pub mod convert;
mod organization;
#[doc(hidden)] // Public for the fuzzing.
pub mod page;
mod status;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use call::{OrganizationGrpc, count_other};
use http::Response;
use tonic::{body::Body, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    app::watch::Watches,
    domain::Role,
    proto::{FILE_DESCRIPTOR_SET, v1::organization_service_server::SERVICE_NAME},
    rate_limit::RateLimit,
};

/// What the gRPC door may spend on a call.
#[derive(Clone, Debug)]
pub struct CallLimits {
    /// The time of a call whose caller brings no deadline, and the longest that one may bring.
    pub deadline: Duration,
    /// Bytes of a request message at most.
    pub message_bytes_max: usize,
    /// How often calls may come from one source.
    pub sources: Option<Arc<RateLimit<IpAddr>>>,
    /// How often one principal may call.
    pub principals: PrincipalLimits,
    /// Who follows changes.
    pub watches: Watches,
}

/// How often one principal may call, by its subject; for each role.
#[derive(Clone, Debug, Default)]
pub struct PrincipalLimits {
    /// Of users.
    pub user: Option<Arc<RateLimit<Arc<str>>>>,
    /// Of support.
    pub support: Option<Arc<RateLimit<Arc<str>>>>,
    /// Of administrators.
    pub administrator: Option<Arc<RateLimit<Arc<str>>>>,
}

impl PrincipalLimits {
    fn of(&self, role: Role) -> Option<&RateLimit<Arc<str>>> {
        let limit = match role {
            Role::User => &self.user,
            Role::Support => &self.support,
            Role::Administrator => &self.administrator,
        };
        limit.as_deref()
    }

    /// Forgets callers who have all their calls again.
    pub fn forget_quiet(&self) {
        for limit in [&self.user, &self.support, &self.administrator].into_iter().flatten() {
            limit.forget_quiet();
        }
    }
}

/// The services of the gRPC listener beside ours: health, and reflection in both versions.
pub fn other_services() -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((routes, reporter))
}

/// The answer to a call of a service that is not here.
pub async fn unknown_service() -> Response<Body> {
    status::unknown_service().into_http()
}

/// Tells the callers of gRPC health whether the service can do its work.
pub async fn report_health(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", SERVICE_NAME] {
        reporter.set_service_status(service, status).await;
    }
}

/// Ends the streams of those who watch the health: else they would hold the process to the end of
/// its drain.
pub async fn end_health_watches(mut reporter: HealthReporter) {
    for service in ["", SERVICE_NAME] {
        reporter.clear_service_status(service).await;
    }
}
