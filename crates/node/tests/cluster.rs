//! Three replicas in one process, over real sockets, TLS and disks.

use claviger_log::CHECKPOINT_EVERY;
use claviger_node::peer::{self, AdminRequest};
use claviger_node::{Identity, Member, Node, NodeConfig, NodeError, PeerError, Peers, Role, Storage};
use claviger_state_machine::{read, ConflictKey, Table};
use claviger_types::command::{
    Actor, Attributes, Command, Content, CreateVault, Entry, InitWorld, Origin, PutResourceGroup, PutVersion, SetReads,
    Tags,
};
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::outcome::{ObjectVersion, Outcome};
use claviger_types::reads::{ReadMode, ReadTiming};
use claviger_types::vault::VaultSettings;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const WORLD: Id128 = Id128([9; 16]);
const VAULT: Id128 = Id128([7; 16]);

/// Bound of every wait: many times what an election takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(params, key), pem)
    }

    fn identity(&self, name: &str) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Identity::from_pem(self.1.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}

struct Replica {
    node: Node,
    server: JoinHandle<()>,
    address: String,
}

impl Replica {
    async fn start(authority: &Authority, dir: &Path, id: u64, address: Option<&str>, world: Id128) -> Self {
        Self::start_as(authority, dir, id, id, address, world).await
    }

    /// With the name and the certificate of node `named`.
    async fn start_as(
        authority: &Authority,
        dir: &Path,
        id: u64,
        named: u64,
        address: Option<&str>,
        world: Id128,
    ) -> Self {
        let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:0")).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let name = format!("node{named}");
        let identity = authority.identity(&name);
        let config = config(id, &name, &address, world);
        // After a stop, the last tasks may still hold the files for a moment.
        let storage = until("the files", || async { Storage::open(dir).ok() }).await;
        let peers = Peers::new(world, id, name, Some(identity.clone()));
        let node = Node::start(config, storage, peers).await.unwrap();
        let server = tokio::spawn(peer::serve(listener, identity, node.clone()));
        Self { node, server, address }
    }

    fn member(&self) -> Member {
        Member { peer: self.address.clone(), name: self.node.name().to_owned() }
    }

    async fn stop(self) -> String {
        self.server.abort();
        self.node.shutdown().await;
        // The listener's socket goes with its task.
        self.server.await.ok();
        self.address
    }
}

fn config(id: u64, name: &str, address: &str, world: Id128) -> NodeConfig {
    NodeConfig {
        id,
        name: name.into(),
        advertise: address.into(),
        world,
        heartbeat_ms: 50,
        election_min_ms: 250,
        election_max_ms: 500,
        snapshot_entries: 40,
        keep_entries: 5,
    }
}

struct Cluster {
    dir: TempDir,
    authority: Authority,
    replicas: Vec<Replica>,
}

impl Cluster {
    async fn new() -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let mut replicas = Vec::new();
        for id in 1..=3 {
            replicas.push(Replica::start(&authority, &dir.path().join(id.to_string()), id, None, WORLD).await);
        }
        let cluster = Self { dir, authority, replicas };
        let first = &cluster.replicas[0].node;
        first.initialize().await.unwrap();
        first.elect_if_alone().await.unwrap();
        first.gate().check().await.unwrap();
        for replica in &cluster.replicas[1..] {
            let join = AdminRequest::Join { id: replica.node.id(), member: replica.member() };
            first.admin(join).await.unwrap();
        }
        let world = Command::InitWorld(InitWorld { world: WORLD, region: "local".into() });
        let vault = Command::CreateVault(CreateVault {
            id: VAULT,
            name: VaultName::parse("demo").unwrap(),
            tenant: Id128([1; 16]),
            subscription: Id128([3; 16]),
            display_name: "demo".into(),
            group: "g".into(),
            location: "local".into(),
            retention_days: 7,
            purge_protection: false,
            settings: VaultSettings::default(),
            policies: vec![],
        });
        let group = Command::PutResourceGroup(PutResourceGroup {
            subscription: Id128([3; 16]),
            name: "g".into(),
            location: "local".into(),
            tags: Tags::new(),
        });
        for command in [world, group, vault] {
            assert_eq!(first.propose(&entry(fresh(), &command)).await.unwrap(), Outcome::Done);
        }
        cluster
    }

    /// Somebody who calls nodes.
    fn peers(&self) -> Peers {
        Peers::new(WORLD, 9, "node9".into(), Some(self.authority.identity("node9")))
    }

    fn path(&self, id: u64) -> std::path::PathBuf {
        self.dir.path().join(id.to_string())
    }

    async fn stop(&mut self, id: u64) -> String {
        let at = self.replicas.iter().position(|replica| replica.node.id() == id).unwrap();
        self.replicas.remove(at).stop().await
    }

    async fn start(&mut self, id: u64, address: &str) {
        let replica = Replica::start(&self.authority, &self.path(id), id, Some(address), WORLD).await;
        self.replicas.push(replica);
    }

    fn node(&self, id: u64) -> &Node {
        &self.replicas.iter().find(|replica| replica.node.id() == id).unwrap().node
    }

    async fn leader(&self) -> u64 {
        until("a leader", || async {
            self.replicas.iter().map(|r| r.node.status()).find(|s| s.role == Role::Leader).map(|s| s.id)
        })
        .await
    }
}

/// The two of three that do not lead.
fn followers(leader: u64) -> [u64; 2] {
    match leader {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let whole = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A request id or version that no other test draws.
fn fresh() -> Id128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0xcd; 16];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Id128(bytes)
}

fn entry(request: Id128, command: &Command) -> Entry {
    Entry::new(request, Actor::System, 1_000_000, command, vec![vec![1; 64]]).unwrap()
}

fn set(name: &str) -> (Id128, Command) {
    let version = fresh();
    let command = Command::PutVersion(PutVersion {
        vault: VAULT,
        kind: Kind::Secret,
        name: ObjectName::parse(name).unwrap(),
        origin: Origin::Create,
        version,
        attributes: Attributes { enabled: true, not_before: None, expires: None },
        tags: Tags::new(),
        content: Content::Secret { content_type: None },
    });
    (version, command)
}

async fn put(node: &Node, name: &str) -> Id128 {
    let (version, command) = set(name);
    match node.propose(&entry(fresh(), &command)).await.unwrap() {
        Outcome::Version(made) => assert_eq!(made.version, version),
        other => panic!("{other:?}"),
    }
    version
}

async fn newest(node: &Node, name: &str) -> Option<ObjectVersion> {
    node.gate().check().await.unwrap();
    node.view(|view| read::live(view, VAULT, Kind::Secret, name, None)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_at_any_node_is_seen_at_every_node() {
    let cluster = Cluster::new().await;
    for round in 0..20 {
        for writer in 1..=3 {
            let version = put(cluster.node(writer), "s").await;
            for reader in 1..=3 {
                let seen = newest(cluster.node(reader), "s").await.map(|v| v.version);
                assert_eq!(seen, Some(version), "round {round}, written at {writer}, read at {reader}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_acts_once_wherever_it_goes() {
    let cluster = Cluster::new().await;
    let (version, command) = set("once");
    let entry = entry(fresh(), &command);
    for id in [2, 1, 3, 2] {
        let outcome = cluster.node(id).propose(&entry).await.unwrap();
        assert!(matches!(outcome, Outcome::Version(made) if made.version == version && made.sequence == 0));
    }
    assert_eq!(newest(cluster.node(3), "once").await.unwrap().sequence, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_die_and_come_back() {
    let mut cluster = Cluster::new().await;
    let mut last = put(cluster.node(1), "s").await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let address = cluster.stop(leader).await;
        let other = cluster.replicas[0].node.id();
        last = put(cluster.node(other), "s").await;
        cluster.start(leader, &address).await;
        let back = newest(cluster.node(leader), "s").await.map(|v| v.version);
        assert_eq!(back, Some(last), "node {leader} came back and answers what it missed");
    }
    for id in 1..=3 {
        assert_eq!(newest(cluster.node(id), "s").await.map(|v| v.version), Some(last));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new().await;
    let address = cluster.stop(3).await;
    let mut last = put(cluster.node(1), "s").await;
    for _ in 0..120 {
        last = put(cluster.node(2), "s").await;
    }
    let leader = cluster.leader().await;
    until("the log to be purged", || async { (cluster.node(leader).status().purged > 60).then_some(()) }).await;
    cluster.start(3, &address).await;
    assert_eq!(newest(cluster.node(3), "s").await.map(|v| v.version), Some(last));
    until("the snapshot that it was caught up by", || async { (cluster.node(3).status().snapshot > 0).then_some(()) })
        .await;
    let hashes = until("equal states", || async {
        let hashes: Vec<_> = cluster.replicas.iter().map(|r| r.node.state().state_hash().unwrap()).collect();
        hashes.windows(2).all(|pair| pair[0] == pair[1]).then_some(hashes)
    })
    .await;
    assert_eq!(hashes.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_built_stops_no_node() {
    let cluster = Cluster::new().await;
    // A file where snapshots are put together. Nodes may have begun with one before.
    let obstacles: Vec<_> = (1..=3).map(|id| cluster.path(id).join("state/building")).collect();
    for obstacle in &obstacles {
        until("a moment between snapshots", || async { std::fs::write(obstacle, "").ok() }).await;
    }
    for _ in 0..100 {
        put(cluster.node(2), "s").await;
    }
    for id in 1..=3 {
        let state = cluster.node(id).state();
        until("a failed snapshot", || async { state.snapshot_failure() }).await;
        assert!(cluster.node(id).status().snapshot < 60);
    }
    let last = put(cluster.node(3), "s").await;
    for (id, obstacle) in (1..=3).zip(&obstacles) {
        assert_eq!(newest(cluster.node(id), "s").await.map(|v| v.version), Some(last));
        std::fs::remove_file(obstacle).unwrap();
        cluster.node(id).admin(AdminRequest::Snapshot).await.unwrap();
        until("a snapshot", || async { (cluster.node(id).status().snapshot > 100).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_answered_or_acknowledged() {
    let mut cluster = Cluster::new().await;
    put(cluster.node(1), "s").await;
    let (two, three) = (cluster.stop(2).await, cluster.stop(3).await);
    assert!(matches!(cluster.node(1).gate().check().await, Err(NodeError::Unavailable(_))));
    let (version, command) = set("s");
    let lost = entry(fresh(), &command);
    assert!(matches!(cluster.node(1).propose(&lost).await, Err(NodeError::Unavailable(_) | NodeError::Unknown)));
    cluster.start(2, &two).await;
    cluster.start(3, &three).await;
    // The same request again: it acts once, whether the first try was committed meanwhile or not.
    assert!(matches!(cluster.node(2).propose(&lost).await, Ok(Outcome::Version(made)) if made.version == version));
    assert_eq!(newest(cluster.node(3), "s").await.map(|v| (v.version, v.sequence)), Some((version, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go() {
    let mut cluster = Cluster::new().await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused = |result: Result<Vec<u8>, NodeError>, why: &str| match result {
        Err(NodeError::Refused(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    };
    refused(cluster.node(leader).admin(AdminRequest::Remove { id: leader }).await, "leads");
    refused(cluster.node(leader).admin(AdminRequest::Remove { id: 9 }).await, "not a member");
    refused(cluster.node(follower).admin(AdminRequest::Remove { id: leader }).await, "not the leader");

    // A voter whose disk is empty may have voted before: it must be removed first.
    let address = cluster.stop(follower).await;
    let path = cluster.path(follower);
    until("the files to be closed", || async { Storage::open(&path).ok() }).await;
    std::fs::remove_dir_all(&path).unwrap();
    cluster.start(follower, &address).await;
    let member = Member { peer: address.clone(), name: format!("node{follower}") };
    let join = AdminRequest::Join { id: follower, member };
    refused(cluster.node(leader).admin(join.clone()).await, "not on the disk");
    cluster.node(leader).admin(AdminRequest::Remove { id: follower }).await.unwrap();
    cluster.node(leader).admin(join).await.unwrap();
    let version = put(cluster.node(follower), "s").await;
    assert_eq!(newest(cluster.node(leader), "s").await.map(|v| v.version), Some(version));

    cluster.node(leader).admin(AdminRequest::TransferLeader { to: follower }).await.unwrap();
    assert_eq!(cluster.leader().await, follower);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_not_handed_to_a_node_that_is_gone() {
    let mut cluster = Cluster::new().await;
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    let at = cluster.stop(gone).await;
    match cluster.node(leader).admin(AdminRequest::TransferLeader { to: gone }).await {
        Err(NodeError::Refused(text)) => assert!(text.contains("cannot take over"), "{text}"),
        handed => panic!("{handed:?}"),
    }
    // It leads on.
    let version = put(cluster.node(leader), "s").await;
    cluster.start(gone, &at).await;
    assert_eq!(newest(cluster.node(gone), "s").await.map(|v| v.version), Some(version));
    cluster.node(leader).admin(AdminRequest::TransferLeader { to: gone }).await.unwrap();
    assert_eq!(cluster.leader().await, gone);
}

/// With its log it has lost its votes, and entries that it acknowledged: neither may be asked of it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_log_elects_nobody() {
    let mut cluster = Cluster::new().await;
    let leader = cluster.leader().await;
    let [lost, other] = followers(leader);
    let version = put(cluster.node(leader), "s").await;
    let at = cluster.stop(lost).await;
    let leader_at = cluster.stop(leader).await;
    let path = cluster.path(lost);
    until("the files to be closed", || async { Storage::open(&path).ok() }).await;
    std::fs::remove_dir_all(&path).unwrap();
    cluster.start(lost, &at).await;
    // The one that is left stands for election, and asks it.
    let fault = until("it to be turned away", || async { cluster.node(lost).status().fault }).await;
    assert!(fault.contains(&format!("the log of node {lost} is not on the disk")), "{fault}");
    assert_eq!((cluster.node(lost).status().term, cluster.node(lost).status().last_index), (0, 0));
    assert!(!cluster.node(other).is_leader());

    // With the disk that is known there is a majority again, and the other one stays out until it is replaced.
    cluster.start(leader, &leader_at).await;
    cluster.node(other).gate().check().await.unwrap();
    assert_eq!(newest(cluster.node(other), "s").await.map(|v| v.version), Some(version));
    let version = put(cluster.node(other), "s").await;
    assert_eq!(cluster.node(lost).status().last_index, 0);
    let leads = cluster.leader().await;
    let new = Replica::start(&cluster.authority, &cluster.path(4), 4, None, WORLD).await;
    let join = AdminRequest::Join { id: 4, member: new.member() };
    cluster.node(leads).admin(join).await.unwrap();
    cluster.node(leads).admin(AdminRequest::Remove { id: lost }).await.unwrap();
    assert_eq!(newest(&new.node, "s").await.map(|v| v.version), Some(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_another_address_is_found_and_holds_a_lease_by_itself() {
    let mut cluster = Cluster::new().await;
    let timing = ReadTiming::default();
    let leases = Command::SetReads(SetReads { mode: ReadMode::Lease, timing });
    assert_eq!(cluster.node(1).propose(&entry(fresh(), &leases)).await.unwrap(), Outcome::Done);
    for moves in [2, cluster.leader().await] {
        let before = cluster.stop(moves).await;
        // Somebody else is there now, and nobody mistakes it.
        let stranger = TcpListener::bind(&before).await.unwrap();
        let path = cluster.path(moves);
        cluster.replicas.push(Replica::start(&cluster.authority, &path, moves, None, WORLD).await);
        let address = cluster.replicas.last().unwrap().address.clone();
        assert_ne!(address, before);
        until("the others to know", || async {
            let known =
                |replica: &Replica| replica.node.status().members.iter().any(|m| m.id == moves && m.peer == address);
            cluster.replicas.iter().all(known).then_some(())
        })
        .await;
        let version = put(cluster.node(moves), "s").await;
        until("a lease", || async { cluster.node(moves).lease().view().valid.then_some(()) }).await;
        assert_eq!(newest(cluster.node(moves), "s").await.map(|v| v.version), Some(version));
        drop(stranger);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_does_not_join() {
    let cluster = Cluster::new().await;
    // Of the same world, which is no cluster.
    let other = Replica::start(&cluster.authority, &cluster.path(4), 4, None, WORLD).await;
    other.node.initialize().await.unwrap();
    other.node.elect_if_alone().await.unwrap();
    other.node.gate().check().await.unwrap();
    let join = AdminRequest::Join { id: 4, member: other.member() };
    match cluster.node(cluster.leader().await).admin(join).await {
        Err(NodeError::Refused(text)) => assert!(text.contains("node 4 belongs to another cluster"), "{text}"),
        joined => panic!("{joined:?}"),
    }
    assert_eq!(other.node.status().role, Role::Leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_another_node_or_world_is_not_taken() {
    let mut cluster = Cluster::new().await;
    cluster.stop(3).await;
    let path = cluster.path(3);
    for (id, world, what) in [(7, WORLD, "that of node 3, not of node 7"), (3, Id128([8; 16]), "belongs to world")] {
        let storage = until("the files to be closed", || async { Storage::open(&path).ok() }).await;
        let config = config(id, "node3", "127.0.0.1:0", world);
        let peers = Peers::new(world, id, "node3".into(), None);
        match Node::start(config, storage, peers).await {
            Err(error) => assert!(error.to_string().contains(what), "{error}"),
            Ok(_) => panic!("it started as {id}"),
        }
    }
}

/// It would vote and acknowledge in the other one's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_the_address_of_another_one_is_not_taken_for_it() {
    let mut cluster = Cluster::new().await;
    let leader = cluster.leader().await;
    let [lost, other] = followers(leader);
    let at = cluster.stop(lost).await;
    let version = put(cluster.node(leader), "s").await;
    let new = Replica::start_as(&cluster.authority, &cluster.path(4), 4, lost, Some(&at), WORLD).await;
    let join = AdminRequest::Join { id: 4, member: new.member() };
    match cluster.node(leader).admin(join.clone()).await {
        Err(NodeError::Refused(text)) => assert!(text.contains("remove it first"), "{text}"),
        joined => panic!("{joined:?}"),
    }
    // Alone with it, nobody is elected.
    let leader_at = cluster.stop(leader).await;
    let call = |id| {
        let (peers, member) = (cluster.peers(), new.member());
        async move { peers.call_node(id, &member, peer::Lane::Control, &peer::Request::Status, PATIENCE).await }
    };
    match call(lost).await {
        Err(PeerError::Unreachable(text)) => assert!(text.contains("node 4 answers there"), "{text}"),
        answered => panic!("{answered:?}"),
    }
    assert!(call(4).await.is_ok());
    // Ten elections long.
    assert!(matches!(cluster.node(other).gate().check().await, Err(NodeError::Unavailable(_))));
    assert_eq!((new.node.status().term, new.node.status().last_index), (0, 0), "nobody has asked it for anything");
    cluster.start(leader, &leader_at).await;
    let leads = cluster.leader().await;
    assert_eq!(newest(cluster.node(other), "s").await.map(|v| v.version), Some(version));
    cluster.node(leads).admin(AdminRequest::Remove { id: lost }).await.unwrap();
    cluster.node(leads).admin(join).await.unwrap();
    assert_eq!(newest(&new.node, "s").await.map(|v| v.version), Some(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_there_is_one_connection() {
    let cluster = Cluster::new().await;
    let target = cluster.replicas[0].member();
    // In the middle, where connections are counted.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = Member { peer: listener.local_addr().unwrap().to_string(), ..target.clone() };
    let (made, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (made.clone(), open.clone());
    let middle = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (made, open, peer) = (counts.0.clone(), counts.1.clone(), target.peer.clone());
            made.fetch_add(1, Ordering::SeqCst);
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(peer).await.unwrap();
                // However it ends.
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let peers = cluster.peers();
    let calls = (0..600).map(|_| {
        let (peers, member) = (peers.clone(), member.clone());
        tokio::spawn(async move {
            peers.call_node(1, &member, peer::Lane::Propose, &peer::Request::Status, PATIENCE).await.map(|_| ())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!((made.load(Ordering::SeqCst), open.load(Ordering::SeqCst)), (1, 1));
    drop(peers);
    until("it to be closed", || async { (open.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    middle.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_world_is_turned_away() {
    let cluster = Cluster::new().await;
    let other = Replica::start(&cluster.authority, &cluster.path(9), 9, None, Id128([8; 16])).await;
    let join = AdminRequest::Join { id: 9, member: other.member() };
    let joined = tokio::time::timeout(Duration::from_secs(3), cluster.node(1).admin(join)).await;
    assert!(!matches!(joined, Ok(Ok(_))), "it never catches up");
    assert_eq!(other.node.status().last_index, 0, "it has received nothing");
    let stranger = Authority::new();
    let peers = Peers::new(WORLD, 9, "node9".into(), Some(stranger.identity("node9")));
    let member = cluster.replicas[0].member();
    let call = peers.call(&member, peer::Lane::Control, &peer::Request::Status, Duration::from_secs(3)).await;
    assert!(call.is_err(), "a certificate of another authority opens nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_clock_that_runs_ahead_decides_nothing() {
    let cluster = Cluster::new().await;
    let leader = cluster.leader().await;
    let ahead = (1..=3).find(|id| *id != leader).unwrap();
    let right = 2_000_000_000_000;
    for id in 1..=3 {
        let now_ms = if id == ahead { right + 91 * 86_400_000 } else { right };
        cluster.node(id).set_clock(move || now_ms);
    }
    // The leader stamps what the node with the wrong clock forwards.
    put(cluster.node(ahead), "s").await;
    assert_eq!(newest(cluster.node(leader), "s").await.map(|v| v.created), Some(right / 1000));
    // What cannot be undone goes by a majority's clocks, whoever asks.
    for id in 1..=3 {
        assert_eq!(cluster.node(id).agreed_ms().await, Some(right), "asked at {id}");
    }
}

/// Has the cluster give leases, and waits until every node holds one.
async fn lease(cluster: &Cluster) {
    let set = Command::SetReads(SetReads { mode: ReadMode::Lease, timing: ReadTiming::default() });
    assert_eq!(cluster.node(1).propose(&entry(fresh(), &set)).await.unwrap(), Outcome::Done);
    until("a lease on every node", || async {
        cluster.replicas.iter().all(|replica| replica.node.lease().view().valid).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_lease_a_node_answers_by_itself_and_sees_what_was_acknowledged() {
    let cluster = Cluster::new().await;
    lease(&cluster).await;
    let parts = [ConflictKey::World, ConflictKey::Object(VAULT, Kind::Secret, "s".into())];
    for round in 0..30u64 {
        let writer = cluster.node(round % 3 + 1);
        let version = put(writer, "s").await;
        for id in 1..=3 {
            let node = cluster.node(id);
            let mut reading = node.gate().read(&parts, Some(VAULT));
            let found = loop {
                reading.begin().await.unwrap();
                let found = node.view(|view| read::live(view, VAULT, Kind::Secret, "s", None)).unwrap();
                if reading.confirm().await.unwrap() {
                    break found.unwrap();
                }
            };
            assert_eq!(found.version, version, "node {id} after a write at node {}", writer.id());
        }
    }
    for id in 1..=3 {
        let counts = cluster.node(id).gate().counts();
        let alone = counts.local.load(Ordering::Relaxed) + counts.held.load(Ordering::Relaxed);
        assert!(alone >= 25, "node {id} answered {alone} of 30 reads by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_differs_serves_no_more() {
    let mut cluster = Cluster::new().await;
    lease(&cluster).await;
    let sick = (1..=3).find(|id| !cluster.node(*id).is_leader()).unwrap();
    let well = 6 - sick - cluster.leader().await;
    // What an `apply` that is not deterministic would do.
    cluster.node(sick).state().danger_write_with_hash(Table::Notices, b"x", Some(b"y")).unwrap();
    for i in 0..CHECKPOINT_EVERY {
        put(cluster.node(well), &format!("s-{}", i % 8)).await;
    }
    until("the fault", || async { cluster.node(sick).status().fault }).await;
    assert!(matches!(cluster.node(sick).gate().check().await, Err(NodeError::Stopped(_))));
    assert!(!cluster.node(sick).lease().view().valid);
    for id in (1..=3).filter(|id| *id != sick) {
        assert_eq!(cluster.node(id).status().fault, None);
        assert!(newest(cluster.node(id), "s-0").await.is_some());
    }
    put(cluster.node(well), "after").await;

    let address = cluster.stop(sick).await;
    cluster.start(sick, &address).await;
    assert!(cluster.node(sick).status().fault.is_some(), "a restart does not forget");
    assert!(matches!(cluster.node(sick).gate().check().await, Err(NodeError::Stopped(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_given_back_is_not_waited_for() {
    let mut cluster = Cluster::new().await;
    lease(&cluster).await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader).unwrap();
    cluster.node(other).resign().await;
    assert!(!cluster.node(other).lease().view().valid);
    let holders = cluster.node(leader).lease().view().holders;
    assert_eq!(holders.get(&other), Some(&0), "{holders:?}");
    cluster.stop(other).await;
    put(cluster.node(leader), "s").await;
    assert!(!cluster.node(leader).lease().view().blocked_by.contains(&other));
}
