//! Operators' commands against a cluster: they speak to nodes over the peer port, with a node's own certificate.

use crate::cli::say;
use crate::config::Config;
use crate::harden;
use crate::pki::{self, Authority, Issued, Usage, ANY_PEER};
use crate::serve::identity;
use crate::world::{self, Protection, World};
use anyhow::{bail, ensure, Context, Result};
use claviger_api::AdminCommand;
use claviger_node::peer::{AdminRequest, Lane, Reply, Request};
use claviger_node::{Member, PeerError, Peers, Role, Status};
use std::path::Path;
use std::time::Duration;

/// Time for an answer that needs no other node.
const SHORT: Duration = Duration::from_secs(5);

/// Time for one that waits for others: a new node catches up within it, or is named as slow by the leader first.
const LONG: Duration = Duration::from_secs(330);

/// `claviger world init`.
pub(crate) fn world_init(
    out: &Path,
    region: &str,
    domain: &str,
    nodes: &[String],
    protection: &Protection,
) -> Result<()> {
    for (i, node) in nodes.iter().enumerate() {
        ensure!(!nodes.iter().take(i).any(|other| other == node), "node `{node}` is named twice");
    }
    harden::private_dir(out)?;
    let write = |name: &str, mode: u32, text: &str| harden::write_new(&out.join(name), mode, text.as_bytes());
    let world = world::create(&out.join("world.key"), region, protection)?;
    let api = Authority::create(&format!("Claviger {region} API"))?;
    write("api-ca.pem", 0o644, api.certificate_pem())?;
    write("api-ca.key", 0o600, &api.expose_key_pem())?;
    api_certificate(&api, out, domain)?;
    let peers = Authority::create(&format!("Claviger {region} peers"))?;
    write("peer-ca.pem", 0o644, peers.certificate_pem())?;
    write("peer-ca.key", 0o600, &peers.expose_key_pem())?;
    nodes.iter().try_for_each(|node| node_certificate(&peers, out, node))?;
    say(&format!("world {} made in {}", world.id.guid(), out.display()));
    say("keep a copy of world.key offline: without it nothing can be read, and whoever has it can read everything");
    Ok(())
}

/// `claviger world certificate`.
pub(crate) fn certificates(secrets: &Path, out: &Path, nodes: &[String], domain: Option<&str>) -> Result<()> {
    let authority = |name: &str| {
        let certificate = secrets.join(format!("{name}.pem"));
        let certificate = std::fs::read_to_string(&certificate)
            .with_context(|| format!("cannot read `{}`", certificate.display()))?;
        let key = harden::read_private(&secrets.join(format!("{name}.key")))?;
        Authority::load(&certificate, std::str::from_utf8(&key).context("the authority's key is no text")?)
    };
    harden::private_dir(out)?;
    if !nodes.is_empty() {
        let peers = authority("peer-ca")?;
        nodes.iter().try_for_each(|node| node_certificate(&peers, out, node))?;
    }
    if let Some(domain) = domain {
        api_certificate(&authority("api-ca")?, out, domain)?;
    }
    say(&format!("certificates made in {}", out.display()));
    Ok(())
}

fn api_certificate(authority: &Authority, out: &Path, domain: &str) -> Result<()> {
    write_certificate(out, "api", &authority.issue(&pki::api_names(domain), &[], Usage::Server)?)
}

fn node_certificate(authority: &Authority, out: &Path, node: &str) -> Result<()> {
    write_certificate(
        out,
        node,
        &authority.issue(&[node.to_owned(), ANY_PEER.to_owned()], &[], Usage::ServerAndClient)?,
    )
}

fn write_certificate(out: &Path, name: &str, issued: &Issued) -> Result<()> {
    harden::write_new(&out.join(format!("{name}.pem")), 0o644, issued.chain_pem.as_bytes())?;
    harden::write_new(&out.join(format!("{name}.key")), 0o600, issued.key_pem.as_bytes())
}

fn peers(config: &Config) -> Result<Peers> {
    let world = World::open(&config.world.file, &config.world.unseal)?;
    Ok(Peers::new(world.id, config.node.id, config.node.name.clone(), Some(identity(config)?)))
}

fn own(config: &Config) -> Member {
    Member { peer: config.peer.advertise.as_str().to_owned(), name: config.node.name.clone() }
}

async fn status_of(peers: &Peers, member: &Member) -> Result<Status, PeerError> {
    match peers.call(member, Lane::Control, &Request::Status, SHORT).await? {
        Reply::Status(status) => Ok(*status),
        _ => Err(PeerError::NoAnswer("an answer of another kind".into())),
    }
}

/// Prints the statement that an approver has to sign.
pub(crate) async fn emergency_statement(config: &Config, bound_ms: u64, minutes: u64) -> Result<()> {
    let answer = ask(config, &AdminCommand::EmergencyStatement { bound_ms, minutes }).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    print!("{}", answer.get("statement").and_then(serde_json::Value::as_str).context("no statement")?);
    Ok(())
}

/// A request to this node's own service; prints the JSON of the answer.
pub(crate) async fn service(config: &Config, command: &AdminCommand) -> Result<()> {
    say(&String::from_utf8_lossy(&ask(config, command).await?));
    Ok(())
}

async fn ask(config: &Config, command: &AdminCommand) -> Result<Vec<u8>> {
    let request = Request::Admin(AdminRequest::Service(serde_json::to_vec(command)?));
    match peers(config)?.call(&own(config), Lane::Control, &request, LONG).await? {
        Reply::Done(bytes) => Ok(bytes),
        _ => bail!("the node gave an answer of another kind"),
    }
}

/// Those who may know the cluster: the node's seeds, then itself.
fn known(config: &Config) -> Vec<Member> {
    let seeds = config.peer.seeds.iter();
    let seeds = seeds.map(|seed| Member { peer: seed.as_str().to_owned(), name: ANY_PEER.to_owned() });
    seeds.chain([own(config)]).collect()
}

/// The leader, as anyone who can be asked knows it.
async fn leader(config: &Config, peers: &Peers) -> Result<Member> {
    let mut seen = Vec::new();
    for member in known(config) {
        match status_of(peers, &member).await {
            Ok(status) => {
                let leader = status.leader.and_then(|id| status.members.into_iter().find(|member| member.id == id));
                if let Some(leader) = leader {
                    return Ok(Member { peer: leader.peer, name: leader.name });
                }
                seen.push(format!("{}: knows no leader", member.peer));
            }
            Err(error) => seen.push(format!("{}: {error}", member.peer)),
        }
    }
    bail!("no leader was found:\n  {}", seen.join("\n  "))
}

async fn admin(config: &Config, request: AdminRequest) -> Result<()> {
    let peers = peers(config)?;
    let leader = leader(config, &peers).await?;
    match peers.call(&leader, Lane::Control, &Request::Admin(request), LONG).await? {
        Reply::Done(_) => Ok(()),
        _ => bail!("the leader gave an answer of another kind"),
    }
}

/// `claviger cluster init`.
pub(crate) async fn init(config: &Config, vaults: Vec<String>) -> Result<()> {
    let peers = peers(config)?;
    for member in known(config) {
        let Ok(status) = status_of(&peers, &member).await else { continue };
        ensure!(
            status.id == config.node.id || status.members.is_empty(),
            "node {} at `{}` belongs to a cluster already: join it with `claviger cluster join`",
            status.id,
            member.peer
        );
    }
    service(config, &AdminCommand::Init { vaults }).await
}

/// `claviger cluster join`.
pub(crate) async fn join(config: &Config) -> Result<()> {
    let peers = peers(config)?;
    let here = status_of(&peers, &own(config)).await;
    let here =
        here.with_context(|| format!("this node does not answer at `{}`; is it started?", config.peer.advertise))?;
    ensure!(here.id == config.node.id, "another node answers at `{}`: {}", config.peer.advertise, here.id);
    admin(config, AdminRequest::Join { id: config.node.id, member: own(config) }).await?;
    say(&format!("node {} is a voter", config.node.id));
    Ok(())
}

/// `claviger cluster remove`.
pub(crate) async fn remove(config: &Config, id: u64) -> Result<()> {
    admin(config, AdminRequest::Remove { id }).await?;
    say(&format!("node {id} is removed; stop it and destroy its data"));
    Ok(())
}

/// `claviger cluster transfer-leader`.
pub(crate) async fn transfer_leader(config: &Config, to: u64) -> Result<()> {
    admin(config, AdminRequest::TransferLeader { to }).await?;
    say(&format!("node {to} leads"));
    Ok(())
}

/// `claviger cluster snapshot`.
pub(crate) async fn snapshot(config: &Config) -> Result<()> {
    match peers(config)?.call(&own(config), Lane::Control, &Request::Admin(AdminRequest::Snapshot), LONG).await? {
        Reply::Done(_) => Ok(()),
        _ => bail!("the node gave an answer of another kind"),
    }
}

/// `claviger cluster status`.
pub(crate) async fn status(config: &Config, json: bool) -> Result<()> {
    let peers = peers(config)?;
    let (mut first, mut silent) = (None, Vec::new());
    for member in known(config).into_iter().rev() {
        match status_of(&peers, &member).await {
            Ok(status) => {
                let known = !status.members.is_empty();
                if known || first.is_none() {
                    first = Some(status);
                }
                if known {
                    break;
                }
            }
            Err(error) => silent.push(format!("{}: {error}", member.peer)),
        }
    }
    let first = first.with_context(|| format!("no node answers:\n  {}", silent.join("\n  ")))?;
    let mut rows = Vec::new();
    for member in &first.members {
        let address = Member { peer: member.peer.clone(), name: member.name.clone() };
        rows.push((member, status_of(&peers, &address).await));
    }
    if json {
        let nodes: Vec<_> = rows
            .iter()
            .map(|(member, status)| match status {
                Ok(status) => serde_json::json!({"id": member.id, "name": member.name, "peer": member.peer,
                    "voter": member.voter, "reachable": true, "status": status}),
                Err(error) => serde_json::json!({"id": member.id, "name": member.name, "peer": member.peer,
                    "voter": member.voter, "reachable": false, "error": error.to_string()}),
            })
            .collect();
        say(&serde_json::to_string_pretty(&serde_json::json!({"leader": first.leader, "nodes": nodes}))?);
        return Ok(());
    }
    if rows.is_empty() {
        say(&format!("node {} belongs to no cluster yet", first.id));
        return Ok(());
    }
    let leader = rows.iter().filter_map(|(_, status)| status.as_ref().ok()).find(|s| s.role == Role::Leader);
    if let Some(s) = leader {
        say(&format!("reads  {}", s.read_mode));
    }
    let voters = rows.iter().filter(|(member, _)| member.voter);
    let (voters, answer) = voters.fold((0, 0), |(all, ok), (_, status)| (all + 1, ok + usize::from(status.is_ok())));
    if answer * 2 <= voters {
        say(&format!("NO MAJORITY: {answer} of {voters} voters answer; nothing is written until more of them do"));
    }
    let blocking = leader.map(|s| s.lease.blocked_by.clone()).unwrap_or_default();
    let head = leader.map_or(0, |s| s.last_index);
    say(&format!(
        "{:>4}  {:<12} {:<22} {:<9} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6} {:>9} {:>8}  {}",
        "node",
        "name",
        "peer",
        "role",
        "term",
        "last",
        "committed",
        "applied",
        "visible",
        "lag",
        "snapshot",
        "lease",
        "chain"
    ));
    for (member, status) in &rows {
        match status {
            Ok(s) => {
                let lease = if s.lease.valid { format!("{} ms", s.lease.remaining_ms) } else { "none".to_owned() };
                let fault = s.fault.as_ref().map(|why| format!("  SERVES NO MORE: {why}")).unwrap_or_default();
                let emergency = if s.emergency { "  EMERGENCY: it answers from a state that may be old" } else { "" };
                let blocks = if blocking.contains(&s.id) { "  writes wait for it" } else { "" };
                say(&format!(
                    "{:>4}  {:<12} {:<22} {:<9} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6} {:>9} {:>8}  {}{blocks}{emergency}{fault}",
                    s.id,
                    s.name,
                    s.peer,
                    s.role.as_str(),
                    s.term,
                    s.last_index,
                    s.committed,
                    s.applied,
                    s.lease.visible,
                    head.saturating_sub(s.applied),
                    s.snapshot,
                    lease,
                    s.chain.get(..12).unwrap_or_default()
                ));
            }
            Err(error) => say(&format!("{:>4}  {:<12} {:<22} {error}", member.id, member.name, member.peer)),
        }
    }
    Ok(())
}
