//! A CONNECT endpoint that leads the official host names to this process and refuses everything else.
//!
//! `claviger exec` points `HTTPS_PROXY` at it, so that unmodified programs, which hard-code `vault.azure.net` or
//! `login.microsoftonline.com`, reach the dev server without root, hosts files or port 443 (contract/az-cli.md section
//! 1, way A). It is no proxy: it opens no connection but to its one target, resolves no name, reads no traffic (TLS
//! ends at the target), and serves loopback alone. A refusal is one line that a developer sees in the client's error.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::pki;

/// Largest request head. Clients send a few hundred bytes; 8 KiB is what common proxies allow.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Time for the head to arrive. The client is on this machine; whoever takes longer only holds a connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections at once. Each tunnel is two descriptors here and one at the target: 256 stay below the common limit of
/// 1024 open files. Further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 256;
/// How long, and for how many bytes, a refused client may go on sending before the connection is closed. A socket
/// closed with unread bytes is reset, and a reset can overtake the answer.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes, then drops all tunnels: end the target's own connections first.
///
/// A listener that others can reach is refused with `InvalidInput`.
pub(crate) async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let why = format!("the CONNECT endpoint serves loopback only, not `{address}`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, slot)) => {
                connections.spawn(async move {
                    if let Err(error) = handle(stream, target, HEAD_TIME_MAX).await {
                        tracing::debug!(%error, "CONNECT connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "CONNECT endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for a free slot first, then for a client.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn handle(mut client: TcpStream, target: SocketAddr, head_time: Duration) -> io::Result<()> {
    let read = tokio::time::timeout(head_time, read_head(&mut client)).await;
    let (head, early) = match read {
        Ok(Ok(Some(parts))) => parts,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(refusal)) => return refuse(client, &refusal).await,
        Err(_) => return refuse(client, &Refusal::new(408, "the request's head did not arrive in time")).await,
    };
    if let Err(refusal) = decide(&head) {
        return refuse(client, &refusal).await;
    }
    let mut server = match TcpStream::connect(target).await {
        Ok(server) => server,
        Err(error) => {
            let text = format!("the dev server at {target} does not answer: {error}");
            return refuse(client, &Refusal::new(502, text)).await;
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    // A client may send its first TLS bytes without waiting for the answer.
    server.write_all(&early).await?;
    tokio::io::copy_bidirectional(&mut Prompt(client), &mut server).await?;
    Ok(())
}

/// A client's socket whose bytes are acknowledged at once.
///
/// Python's urllib3 leaves Nagle's algorithm on behind a proxy and sends head and body apart: the body would wait for our
/// delayed acknowledgement, 40 ms for every request. The kernel forgets the wish, so it is said again after each read.
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, to);
        if read.is_ready() {
            // Only a matter of speed: where it is not to be had, all works as well.
            rustix::net::sockopt::set_tcp_quickack(&self.0, true).ok();
        }
        read
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The head without its closing empty line, and what came after it. `None`: the client left without a word.
async fn read_head(client: &mut TcpStream) -> Result<Option<(Vec<u8>, Vec<u8>)>, Refusal> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let searched = bytes.len();
        match client.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
        // The end may have begun in the bytes before.
        let from = searched.saturating_sub(END.len() - 1);
        let found = bytes.get(from..).and_then(|tail| tail.windows(END.len()).position(|window| window == END));
        let end = found.map(|at| from + at);
        if end.unwrap_or(bytes.len()) > HEAD_BYTES_MAX {
            return Err(Refusal::new(431, "the request's head is too large"));
        }
        if let Some(end) = end {
            let early = bytes.split_off(end + END.len());
            bytes.truncate(end);
            return Ok(Some((bytes, early)));
        }
    }
}

/// Whether this head asks for a tunnel that there is.
fn decide(head: &[u8]) -> Result<(), Refusal> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refusal::new(400, "the request line is not text"))?;
    let mut parts = line.split(' ');
    let (Some(method), Some(asked), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::new(400, "the request line is not `CONNECT host:443 HTTP/1.1`"));
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Refusal::new(505, "only HTTP/1.1 is spoken here"));
    }
    if method == "CONNECT" {
        return decide_connect(asked);
    }
    if is_to_metadata_service(asked) {
        return Err(Refusal::new(
            403,
            "there is no instance metadata service at 169.254.169.254 here: use `claviger exec --managed-identity`, or \
             AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        ));
    }
    Err(Refusal::new(405, "this endpoint knows CONNECT only: plain http goes nowhere from here"))
}

fn decide_connect(asked: &str) -> Result<(), Refusal> {
    let Some((host, port)) = asked.rsplit_once(':') else {
        return Err(Refusal::new(400, format!("`{}` has no port", shown(asked))));
    };
    if !pki::DEV_HOSTS.iter().any(|known| pki::covers(known, host)) {
        if host.to_ascii_lowercase().contains(".managedhsm.") {
            return Err(Refusal::new(403, "claviger has vaults, and no managed HSM"));
        }
        return Err(Refusal::new(
            403,
            format!("`{}` is not a name that claviger answers for, and it leads nowhere else", shown(host)),
        ));
    }
    if port != "443" {
        return Err(Refusal::new(403, format!("only port 443 is answered for, not `{}`", shown(port))));
    }
    Ok(())
}

/// `http://169.254.169.254` with or without a port and a path.
fn is_to_metadata_service(url: &str) -> bool {
    url.strip_prefix("http://169.254.169.254").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '?']))
}

/// Client's text for an answer: printable and short.
fn shown(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[derive(Debug)]
struct Refusal {
    status: u16,
    text: String,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn render(&self) -> String {
        let (status, text) = (self.status, &self.text);
        let reason = match status {
            400 => "Bad Request",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            502 => "Bad Gateway",
            _ => "Refused",
        };
        // Most clients show the status line, and nothing of the body.
        let reason = if status == 403 { text } else { reason };
        let allow = if status == 405 { "Allow: CONNECT\r\n" } else { "" };
        let length = text.len() + "claviger: \n".len();
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             {allow}Connection: close\r\n\r\nclaviger: {text}\n"
        )
    }
}

async fn refuse(mut client: TcpStream, refusal: &Refusal) -> io::Result<()> {
    tracing::info!(status = refusal.status, reason = refusal.text, "CONNECT refused");
    client.write_all(refusal.render().as_bytes()).await?;
    client.shutdown().await?;
    let (mut rest, mut nowhere) = (client.take(DRAIN_BYTES_MAX), tokio::io::sink());
    // The answer is out; how the rest ends is of no interest.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, tokio::io::copy(&mut rest, &mut nowhere)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn loopback() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// The endpoint, in front of a target that answers every connection with `hello`, then echoes.
    async fn start() -> Running {
        let target = loopback().await;
        let target_address = target.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = target.accept().await.unwrap();
                tokio::spawn(async move {
                    stream.write_all(b"hello").await.unwrap();
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                });
            }
        });
        start_before(target_address).await
    }

    async fn start_before(target: SocketAddr) -> Running {
        let listener = loopback().await;
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, target, async move {
            let _ = stopped.await;
        }));
        Running { address, stop, task }
    }

    /// Sends all of it and reads to the end.
    async fn exchange(address: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    const TUNNEL: &str = "HTTP/1.1 200 Connection established\r\n\r\nhello";

    #[tokio::test]
    async fn known_names_get_a_tunnel_and_early_bytes_go_through_it() {
        let running = start().await;
        for host in pki::DEV_HOSTS {
            let host = host.replace('*', "My-Vault");
            let request = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\nearly bytes");
            assert_eq!(exchange(running.address, request.as_bytes()).await, format!("{TUNNEL}early bytes"), "{host}");
        }
        let upper = b"CONNECT LOGIN.MicrosoftOnline.com:443 HTTP/1.0\r\n\r\n";
        assert_eq!(exchange(running.address, upper).await, TUNNEL);
    }

    #[tokio::test]
    async fn a_head_in_pieces_is_one_head() {
        let running = start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in ["CONN", "ECT a.vault.azure.net:443 HTTP/1.1\r", "\nUser-Agent: x\r\n", "\r", "\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, TUNNEL);
    }

    #[tokio::test]
    async fn everything_else_is_refused_with_a_reason() {
        let running = start().await;
        let long = format!("CONNECT a.vault.azure.net:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        let endless = "x".repeat(2 * HEAD_BYTES_MAX);
        let cases = [
            ("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 403, "`example.com` is not a name"),
            ("CONNECT vault.azure.net.evil.com:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT a.b.vault.azure.net:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT a.ManagedHSM.azure.net:443 HTTP/1.1\r\n\r\n", 403, "no managed HSM"),
            ("CONNECT *.vault.azure.net:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT [::1]:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT user@login.windows.net:443 HTTP/1.1\r\n\r\n", 403, "leads nowhere else"),
            ("CONNECT a.vault.azure.net:80 HTTP/1.1\r\n\r\n", 403, "only port 443"),
            ("CONNECT a.vault.azure.net:0443 HTTP/1.1\r\n\r\n", 403, "only port 443"),
            ("CONNECT a.vault.azure.net HTTP/1.1\r\n\r\n", 400, "has no port"),
            ("CONNECT  a.vault.azure.net:443 HTTP/1.1\r\n\r\n", 400, "request line"),
            ("connect a.vault.azure.net:443 HTTP/1.1\r\n\r\n", 405, "CONNECT only"),
            ("CONNECT a.vault.azure.net:443 HTTP/2\r\n\r\n", 505, "HTTP/1.1"),
            ("CONNECT a.vault.azure.net:443\r\n\r\n", 400, "request line"),
            ("GET / HTTP/1.1\r\n\r\n", 405, "CONNECT only"),
            ("GET http://login.windows.net/ HTTP/1.1\r\n\r\n", 405, "CONNECT only"),
            ("POST http://127.0.0.1:8200/ HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", 405, "plain http goes nowhere"),
            ("GET http://169.254.169.254/metadata/identity HTTP/1.1\r\n\r\n", 403, "no instance metadata service"),
            ("GET http://169.254.169.2540/ HTTP/1.1\r\n\r\n", 405, "CONNECT only"),
            (long.as_str(), 431, "too large"),
            (endless.as_str(), 431, "too large"),
        ];
        for (request, status, want) in cases {
            let answer = exchange(running.address, request.as_bytes()).await;
            let line = request.lines().next().unwrap_or_default();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(want), "{line}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
            assert_eq!(body.lines().count(), 1, "{answer}");
            assert!(status != 403 || head.contains(want), "{answer}");
        }
        assert_eq!(exchange(running.address, b"").await, "", "a client that says nothing hears nothing");
        assert_eq!(exchange(running.address, b"CONNECT a.vault").await, "");
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_is_sent_away() {
        let listener = loopback().await;
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            handle(stream, address, Duration::from_millis(20)).await.unwrap();
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"CONNECT a.vault.azure.net:443 HTTP/1.1\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    #[tokio::test]
    async fn a_dead_target_is_said_to_be_dead() {
        let gone = loopback().await.local_addr().unwrap();
        let running = start_before(gone).await;
        let answer = exchange(running.address, b"CONNECT login.windows.net:443 HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("does not answer"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_the_tunnels_too() {
        let running = start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"CONNECT login.windows.net:443 HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = vec![0; TUNNEL.len()];
        stream.read_exact(&mut answer).await.unwrap();
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
        assert_eq!(stream.read(&mut answer).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(running.address).await.is_err());
    }

    #[tokio::test]
    async fn more_clients_than_slots_wait_their_turn() {
        let running = start().await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(running.address).await.unwrap());
        }
        let address = running.address;
        let late =
            tokio::spawn(async move { exchange(address, b"CONNECT login.windows.net:443 HTTP/1.1\r\n\r\n").await });
        // Only when one of the first has gone can the last be served.
        drop(idle.pop());
        assert_eq!(late.await.unwrap(), TUNNEL);
    }

    #[tokio::test]
    async fn a_listener_that_others_can_reach_is_refused() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let error = serve(listener, target, std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("loopback only"), "{error}");
    }
}
