//! A running service that a command calls, as any client does.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    config::ServerArgs,
    proto::v1::organization_service_client::OrganizationServiceClient,
    server::{Peer, endpoint},
};

pub(super) const DEADLINE: Duration = Duration::from_secs(10);
pub(super) struct Service {
    pub(super) client: OrganizationServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

impl Service {
    pub(super) fn connect(args: &ServerArgs) -> Result<Self> {
        let token = token(args)?;
        let text = format!("Bearer {}", token.expose_secret());
        let mut authorization: MetadataValue<Ascii> =
            text.parse().context("the token has characters that no token has")?;
        authorization.set_sensitive(true);
        let peer =
            Peer { uri: &args.server, ca: args.server_ca.as_deref(), ca_flag: "--server-ca" };
        let channel = endpoint(peer)?.connect_lazy();
        Ok(Self { client: OrganizationServiceClient::new(channel), authorization })
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request.set_timeout(DEADLINE);
        request
    }
}

fn token(args: &ServerArgs) -> Result<SecretString> {
    if let Some(path) = &args.token_file {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read --token-file {}", path.display()))?;
        return Ok(text.trim().into());
    }
    args.token.clone().context("a token is needed: in the variable ORGD_TOKEN, or in --token-file")
}

pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::NotFound
            | Code::InvalidArgument
            | Code::Unimplemented
    )
}
