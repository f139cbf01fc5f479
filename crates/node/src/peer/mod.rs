//! Talking to other nodes: framed bincode over mutual TLS.
//!
//! Every connection begins with a greeting that names protocol, world and node, so that nodes of two worlds never exchange
//! a message even if an operator gave them certificates of one authority. Requests carry an id and are answered in any
//! order. Nothing secret travels here in clear: entries hold sealed material only.

mod client;
mod server;
mod tls;
mod wire;

pub use client::{Lane, Peers};
pub use server::serve;
pub use tls::Identity;
pub use wire::{AdminRequest, PeerError, Reply, Request};

pub(crate) use wire::{Transfer, CHUNK_BYTES};
