//! Talking to other nodes: framed bincode over mutual TLS.
//!
//! Every connection begins with a greeting that names protocol, world and node, so that nodes of two worlds never exchange
//! a message even if an operator gave them certificates of one authority. Requests carry an id and are answered in any
//! order. Nothing secret travels here in clear: entries hold sealed material only.

use std::io;
use tokio::net::TcpStream;

mod client;
mod server;
mod tls;
mod wire;

pub use client::{Lane, Peers};
pub use server::serve;
pub use tls::Identity;
pub use wire::{AdminRequest, Decided, PeerError, Reply, Request};

pub(crate) use wire::{Transfer, CHUNK_BYTES};

/// How long sent bytes may stay unacknowledged, in milliseconds: after a network was cut, a new connection is there long
/// before TCP would try the old one again.
const UNACKNOWLEDGED_MS: u32 = 1_500;

/// Settings of every peer socket.
fn set_up(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MS)?;
    Ok(())
}
