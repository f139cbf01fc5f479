//! HTTP: the data plane, the management plane and the identity surface, over one node.
//!
//! Requests are parsed into valid types, authorized, carried out and rendered; an operation works with a [`call::Call`],
//! which cannot be had without the route's permission. Domain errors become the wire's in one place ([`error`]).
//!
//! Invariants: nothing is answered from local state before the read gate was passed; plaintext material is sealed before a
//! command is made, and never leaves [`sealing`] but for the operation that asked; what this release does not have
//! answers so, with 501.

mod admin;
pub mod attestation;
mod call;
mod certificate;
mod clock;
mod directory;
pub mod domain;
pub mod emergency;
pub mod error;
mod filter;
mod graph;
mod http;
mod identity;
mod issuers;
mod jws;
mod keycache;
mod keygen;
mod managed;
mod management;
mod metrics;
mod object;
mod ops;
mod pause;
mod process;
mod release_policy;
pub mod route;
mod scheduler;
pub mod sealing;
mod server;
mod service;
mod setup;
mod tokens;
mod version;
mod wire;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use admin::DirectoryCommand;
pub use clock::{now_ms, Clock};
pub use issuers::{external_object_id, KeySource, Mapping, TrustedIssuer};
pub use managed::{serve_managed_identities, Assigned, ManagedIdentities, APP_SERVICE};
pub use scheduler::run_scheduler;
pub use server::{serve, serve_admin, ServeConfig};
pub use service::{fresh_id, Service, ServiceConfig};
pub use setup::{AdminCommand, Welcome, RETENTION_DAYS};
