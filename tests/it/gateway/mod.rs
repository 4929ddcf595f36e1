//! `orgd gateway` in front of a service: its calls, and what each of its callers may have.

mod calls;
mod shares;
