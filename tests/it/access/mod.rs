//! Who the caller is, and what it may see and do: credentials, their ends, and the rights of roles.

mod authentication;
mod authz;
mod indistinguishable;
mod pending_writes;
mod revocation;
mod whoami;
