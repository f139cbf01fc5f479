//! The answering side.

use super::tls::Identity;
use super::wire::{
    decode, encode, read_frame, write_frame, Hello, Introduced, Introduction, PeerError, Reply, Request, Welcome,
    INTRODUCES, INTRODUCTION, PROTOCOL,
};
use crate::node::Node;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Time for the TLS handshake and the greeting.
const GREETING: Duration = Duration::from_secs(5);

/// Connections at once: four lanes from each of sixty-three peers, and room for operators.
const CONNECTIONS_MAX: usize = 256;

/// Requests of one connection that are being answered at once: forwarded proposals wait for a commit each.
const REQUESTS_MAX: usize = 1024;

/// Serves peers until the future is dropped, and all connections with it.
pub async fn serve(listener: TcpListener, identity: Identity, node: Node) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, from)) => {
                let (identity, node) = (identity.clone(), node.clone());
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection(socket, &identity, node).await {
                        tracing::debug!(%from, %error, "peer connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "peer connection could not be accepted");
                // Out of file handles, most likely: give others time to close some.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, identity: &Identity, node: Node) -> io::Result<()> {
    super::set_up(&socket)?;
    let greet = async {
        let stream = identity.acceptor.accept(socket).await?;
        let (reader, writer) = tokio::io::split(stream);
        let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
        let (_, message) = read_frame(&mut reader).await?;
        let hello: Hello = decode(&message)?;
        let welcome: Welcome = check(&hello, &node);
        write_frame(&mut writer, 0, &encode(&welcome)?).await?;
        writer.flush().await?;
        welcome.map_err(io::Error::other)?;
        io::Result::Ok((reader, writer, hello.node))
    };
    let (mut reader, mut writer, caller) = timeout(GREETING, greet).await??;
    let (send, mut queue) = mpsc::channel::<(u64, Vec<u8>)>(REQUESTS_MAX);
    // The writer and every request end with the connection.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some((id, message)) = queue.recv().await {
            write_frame(&mut writer, id, &message).await?;
            while let Ok((id, message)) = queue.try_recv() {
                write_frame(&mut writer, id, &message).await?;
            }
            writer.flush().await?;
        }
        io::Result::Ok(())
    });
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let (id, message) = read_frame(&mut reader).await?;
        if id == INTRODUCTION {
            let answer = introduced(caller, &decode(&message)?, &node);
            let refused = answer.is_err();
            send.send((id, encode(&answer)?)).await.map_err(io::Error::other)?;
            if refused {
                // What was sent arrives first: the writer ends when this end of its queue is gone.
                drop(send);
                while tasks.join_next().await.is_some() {}
                return Ok(());
            }
            continue;
        }
        let request: Request = decode(&message)?;
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        while tasks.try_join_next().is_some() {}
        let (node, send) = (node.clone(), send.clone());
        tasks.spawn(async move {
            let _place = place;
            let answer: Result<Reply, PeerError> = node.answer(request).await;
            if let Ok(message) = encode(&answer) {
                // A closed queue: the connection has gone, and with it whoever asked.
                send.send((id, message)).await.ok();
            }
            Ok(())
        });
    }
}

fn check(hello: &Hello, node: &Node) -> Welcome {
    let own = node.hello_world();
    if hello.protocol != PROTOCOL {
        return Err(format!("protocol {} is not spoken here, {PROTOCOL} is", hello.protocol));
    }
    if hello.world != own {
        return Err(format!("this node belongs to world {}, not {}", own.guid(), hello.world.guid()));
    }
    Ok(Hello { protocol: INTRODUCES, world: own, node: node.id(), name: node.name().to_owned() })
}

/// Whether this node and the one that calls are still those that the cluster knows.
fn introduced(caller: u64, introduction: &Introduction, node: &Node) -> Introduced {
    let disks = node.disks();
    disks.is_expected(node.id(), introduction.yours)?;
    disks.check(caller, Some(introduction.disk))?;
    Ok(disks.own())
}
