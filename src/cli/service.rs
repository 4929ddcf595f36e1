//! A running service that a command calls, as any client does.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Error, Result};
use http::Uri;
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::output::{Failed, WRONG_WORDS};
use crate::{
    config::{ServerArgs, secret_in_file},
    proto::{request_id, v1::organization_service_client::OrganizationServiceClient},
    server::{Flags, Peer, endpoint, is_of_tls, unreachable},
};

pub(super) const DEADLINE: Duration = Duration::from_secs(10);
const FLAGS: Flags = Flags { uri: "--server (ORGD_SERVER)", ca: "--server-ca (ORGD_SERVER_CA)" };

/// Exit codes beside 0, 1 for any other failure, and 2 for words that are wrong.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  there is no such organization
  4  the token is missing, wrong, or without the right
  5  the organization was changed since (--etag)
  6  the service cannot be reached, is too busy or too slow; try again";

const TOKEN: u8 = 4;
const UNREACHABLE: u8 = 6;

pub(super) struct Service {
    pub(super) client: OrganizationServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    uri: Uri,
}

impl Service {
    pub(super) fn connect(args: &ServerArgs) -> Result<Self> {
        let token = token(args)?;
        let text = format!("Bearer {}", token.expose_secret());
        let authorization = text.parse::<MetadataValue<Ascii>>();
        let mut authorization = authorization
            .map_err(|_| Failed::new(TOKEN, "the token has characters that no token has"))?;
        authorization.set_sensitive(true);
        let uri = args.server.clone();
        let peer = Peer { uri: &uri, ca: args.server_ca.as_deref(), flags: FLAGS };
        let client = OrganizationServiceClient::new(endpoint(peer)?.connect_lazy());
        Ok(Self { client, authorization, uri })
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request.set_timeout(DEADLINE);
        request
    }

    pub(super) fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T> {
        answer.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    /// The same of a change: whoever does not know whether it was made can run the command again.
    pub(super) fn answer_to_change<T>(
        &self,
        answer: Result<Response<T>, Status>,
        key: Uuid,
    ) -> Result<T> {
        answer.map(Response::into_inner).map_err(|status| {
            let code = exit_code(status.code());
            let error = self.failed(&status);
            if code != UNREACHABLE {
                return error;
            }
            let hint = format!("run the command again with --key {key}: the change is made once");
            Failed::new(code, format!("{error}\n  {hint}")).into()
        })
    }

    /// A call's failure as a sentence with its exit code.
    pub(super) fn failed(&self, status: &Status) -> Error {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else {
            let code = if is_of_tls(status) { 1 } else { UNREACHABLE };
            return Failed::new(code, unreachable(&self.uri, FLAGS, status)).into();
        };
        let id = status.metadata().get(request_id::HEADER.as_str());
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or("unknown");
        let mut text = format!("{} ({}, request {id})", status.message(), info.reason);
        for field in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
            let _ = write!(text, "\n  {}: {}", field.field, field.description);
        }
        Failed::new(exit_code(status.code()), text).into()
    }
}

fn exit_code(code: Code) -> u8 {
    match code {
        Code::NotFound => 3,
        Code::Unauthenticated | Code::PermissionDenied => TOKEN,
        Code::Aborted => 5,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => UNREACHABLE,
        _ => 1,
    }
}

fn token(args: &ServerArgs) -> Result<SecretString> {
    if let Some(path) = &args.token_file {
        // Not clap's to say: it would name a flag of the variable.
        if args.token.is_some() {
            let sentence =
                "the token is in ORGD_TOKEN and in --token-file (ORGD_TOKEN_FILE): set one";
            return Err(Failed::new(WRONG_WORDS, sentence).into());
        }
        return given(secret_in_file("--token-file", path)?)
            .with_context(|| format!("--token-file {} is empty", path.display()));
    }
    given(args.token.clone().unwrap_or_default())
}

fn given(token: SecretString) -> Result<SecretString> {
    if token.expose_secret().is_empty() {
        let sentence = "a token is needed: in the variable ORGD_TOKEN, or in --token-file";
        return Err(Failed::new(TOKEN, sentence).into());
    }
    if token.expose_secret().contains(' ') {
        let sentence = "the token has a space in it; leave out the word before it, such as Bearer";
        return Err(Failed::new(TOKEN, sentence).into());
    }
    Ok(token)
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
