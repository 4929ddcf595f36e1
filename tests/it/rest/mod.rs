//! The REST API alone: what HTTP asks of it, its document, and its page.

mod bodies;
mod browser;
mod expectations;
mod generated_clients;
mod head;
mod hosts;
mod openapi;
mod requests;
