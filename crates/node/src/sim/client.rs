//! What clients ask, and how a node answers: as the API does, with cryptography that takes its time.

use super::node::SimNode;
use super::record::{End, Power, Subject, Value};
use super::rng::Rng;
use super::Mutant;
use crate::error::NodeError;
use crate::hooks;
use crate::peer::{PeerError, Reply, Request};
use claviger_lease::Broken;
use claviger_log::Payload;
use claviger_state_machine::kv::Read;
use claviger_state_machine::PURGE_ROWS_MAX;
use claviger_state_machine::{read, ConflictKey, MemKv};
use claviger_types::command::{
    Actor, Attributes, Command, Content, CreateVault, Entry, InitWorld, ObjectRef, Origin, PutResourceGroup,
    PutSubscription, PutVersion, SetPolicies, SetReads, SetVaultReads, Tags, UpdateVault, UpdateVersion, VaultRef,
};
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::outcome::Outcome;
use claviger_types::permission::{AccessPolicy, Permission, SecretPermission};
use claviger_types::reads::{ReadMode, ReadTiming};
use claviger_types::vault::VaultSettings;
use std::time::Duration;
use tokio::time::Instant;

const TENANT: Id128 = Id128([1; 16]);
const SUBSCRIPTION: Id128 = Id128([3; 16]);

/// Vaults, objects in each, principals: few, so that they are hot.
pub(super) const VAULTS: usize = 2;
pub(super) const OBJECTS: usize = 3;
pub(super) const PRINCIPALS: usize = 2;

/// How long a node tries to write. The real one has longer; here a write that hangs shall not hold up a client.
const PROPOSE: Duration = Duration::from_millis(3_000);

/// How long one forwarded attempt waits.
const ATTEMPT: Duration = Duration::from_millis(1_500);

/// Wait before asking again who leads.
const NO_LEADER: Duration = Duration::from_millis(30);

/// A request on its way to a node.
pub(super) struct Work {
    pub(super) op: usize,
    pub(super) ask: AskFor,
    pub(super) rng: Rng,
}

/// What is asked for.
#[derive(Clone)]
pub(super) enum AskFor {
    Object {
        vault: usize,
        object: usize,
        who: usize,
    },
    List {
        vault: usize,
        who: usize,
    },
    /// What is looked up before a vault is known.
    Settled {
        vault: usize,
        who: usize,
    },
    Write(Vec<u8>),
}

fn vault_id(vault: usize) -> Id128 {
    Id128([0x70 + u8::try_from(vault).unwrap(); 16])
}

fn principal(who: usize) -> Id128 {
    Id128([0x40 + u8::try_from(who).unwrap(); 16])
}

fn object(object: usize) -> (Kind, ObjectName) {
    let kind = if object == 2 { Kind::Key } else { Kind::Secret };
    (kind, ObjectName::parse(["a", "b", "k"][object]).unwrap())
}

/// A number that tells ids apart.
fn short(id: Id128) -> u64 {
    u64::from_be_bytes(id.0[..8].try_into().unwrap())
}

fn long(n: u64) -> Id128 {
    let mut bytes = [0xab; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Id128(bytes)
}

/// What is to be seen of a subject. A vault: its last change, 1 if the principal may read, 1 if it is there. An object: its
/// version, 1 if that is enabled, last changes of version and head; or 0, 0 and when it was deleted. A list: that of all.
pub(super) fn value(kv: &impl Read, subject: &Subject) -> Value {
    match subject {
        Subject::Vault { vault, who } => {
            let found = read::vault(kv, vault_id(*vault)).unwrap();
            let policies = read::policies(kv, vault_id(*vault)).unwrap();
            let get = Permission::Secret(SecretPermission::Get);
            let lives = found.as_ref().is_some_and(|vault| vault.deletion.is_none());
            let may = lives && policies.iter().any(|policy| policy.oid == principal(*who) && policy.grants(get));
            let changed = found.as_ref().map_or(0, |vault| vault.mod_index);
            vec![changed, u64::from(may), u64::from(lives)]
        }
        Subject::Object { vault, object: at } => {
            let (kind, name) = object(*at);
            let (vault, name) = (vault_id(*vault), name.folded());
            let head = read::head(kv, vault, kind, &name).unwrap();
            let version = read::live(kv, vault, kind, &name, None).unwrap();
            match (head, version) {
                (Some(head), Some(version)) => {
                    let enabled = u64::from(version.attributes.enabled);
                    vec![short(version.version), enabled, version.mod_index, head.mod_index]
                }
                _ => {
                    let deleted = read::deleted_head(kv, vault, kind, &name).unwrap();
                    vec![0, 0, deleted.map_or(0, |found| found.head.mod_index)]
                }
            }
        }
        Subject::List { vault } => {
            let kinds = [Kind::Secret, Kind::Key];
            let pages = kinds.map(|kind| read::list(kv, vault_id(*vault), kind, "", PURGE_ROWS_MAX).unwrap());
            pages.iter().flat_map(|page| &page.items).flat_map(|v| [short(v.version), v.mod_index]).collect()
        }
    }
}

/// All subjects.
pub(super) fn subjects() -> Vec<Subject> {
    let mut all = Vec::new();
    for vault in 0..VAULTS {
        all.extend((0..PRINCIPALS).map(|who| Subject::Vault { vault, who }));
        all.extend((0..OBJECTS).map(|object| Subject::Object { vault, object }));
        all.push(Subject::List { vault });
    }
    all
}

/// The highest log index that a value tells of.
fn newest(subject: &Subject, value: &Value) -> u64 {
    match (subject, value.as_slice()) {
        (Subject::Vault { .. }, [changed, ..]) => *changed,
        (Subject::Object { .. }, [.., changed]) => *changed,
        (Subject::List { .. }, all) => all.iter().skip(1).step_by(2).max().copied().unwrap_or(0),
        _ => 0,
    }
}

/// Answers a client.
pub(super) async fn serve(node: &SimNode, work: Work) {
    let Work { op, ask, rng } = work;
    let end = match ask {
        AskFor::Write(bytes) => propose(node, bytes).await,
        AskFor::Settled { vault, who } => match settled(node, vault, who, rng).await {
            Ok(seen) => End::Seen(seen, None),
            Err(_) => End::Failed,
        },
        AskFor::Object { vault, object, who } => {
            let subjects = [Subject::Vault { vault, who }, Subject::Object { vault, object }];
            local(node, vault, &subjects, rng).await.unwrap_or(End::Failed)
        }
        AskFor::List { vault, who } => {
            let subjects = [Subject::Vault { vault, who }, Subject::List { vault }];
            local(node, vault, &subjects, rng).await.unwrap_or(End::Failed)
        }
    };
    let visible = node.record.visible(Some(&node.lease));
    // An older answer is shown early, too: what it tells of must be visible somewhere.
    if let End::Seen(seen, None) = &end {
        let used = seen.iter().map(|(subject, value)| newest(subject, value)).max().unwrap_or(0);
        if node.gate.mode(None) == ReadMode::Lease && used > visible {
            node.record.wrong(format!("I2: node {} shows {used}, but only {visible} is visible", node.id));
        }
    }
    let now = node.record.time.look();
    let mut inner = node.record.inner();
    if let Some(op) = inner.ops.get_mut(op) {
        // A client that has given up hears nothing.
        if op.end.is_none() {
            op.end = Some((now, visible, end));
        }
    }
}

async fn rest(rng: &mut Rng, most: u64) {
    let ms = rng.within(0..=most);
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn parts_of(vault: usize, subjects: &[Subject]) -> Vec<ConflictKey> {
    let id = vault_id(vault);
    let mut parts = vec![ConflictKey::World, ConflictKey::Vault(id)];
    for subject in subjects {
        match subject {
            Subject::Object { object: at, .. } => {
                let (kind, name) = object(*at);
                parts.push(ConflictKey::Object(id, kind, name.folded()));
            }
            Subject::List { .. } => parts.push(ConflictKey::VaultAny(id)),
            Subject::Vault { .. } => {}
        }
    }
    parts
}

/// A read of the data plane: begin, evaluate, confirm.
async fn local(node: &SimNode, vault: usize, subjects: &[Subject], mut rng: Rng) -> Result<End, NodeError> {
    let parts = parts_of(vault, subjects);
    let gate = &node.gate;
    let before = node.mutant == Mutant::Rule(Broken::CheckBefore);
    let mut reading = gate.read(&parts, Some(vault_id(vault)));
    loop {
        reading.begin().await?;
        let checked = before && reading.confirm().await?;
        let mut seen = Vec::new();
        for subject in subjects {
            seen.push((subject.clone(), node.store.view(|kv: &MemKv| value(kv, subject))));
            rest(&mut rng, 1).await;
        }
        // A quarter are signatures with large keys.
        let crypto = if rng.chance(250) { 30 } else { 2 };
        rest(&mut rng, crypto).await;
        if node.mutant == Mutant::NoConfirm || checked || reading.confirm().await? {
            return Ok(End::Seen(seen, reading.behind_ms()));
        }
    }
}

/// A read of what is not a vault's data: check, look, settle.
async fn settled(node: &SimNode, vault: usize, who: usize, mut rng: Rng) -> Result<Vec<(Subject, Value)>, NodeError> {
    let subject = Subject::Vault { vault, who };
    node.gate.check().await?;
    rest(&mut rng, 2).await;
    let value = node.store.view(|kv: &MemKv| value(kv, &subject));
    if node.mutant != Mutant::NoSettle {
        node.gate.settle().await?;
    }
    Ok(vec![(subject, value)])
}

/// Writes at the leader.
pub(super) async fn write(node: &SimNode, bytes: Vec<u8>, deadline: Instant) -> Result<Outcome, PeerError> {
    if node.mutant == Mutant::EarlyAck {
        return match tokio::time::timeout_at(deadline, node.raft.client_write(Payload(bytes))).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => Err(hooks::write_error(error)),
            Err(_) => Err(PeerError::Unknown),
        };
    }
    let decided = hooks::write(&node.raft, &node.lease, bytes, deadline, |_, _| {}).await;
    node.record.visible(Some(&node.lease));
    decided.map(|decided| decided.outcome)
}

/// As the real node proposes: here or at the leader, again while there is time.
async fn propose(node: &SimNode, bytes: Vec<u8>) -> End {
    let deadline = Instant::now() + PROPOSE;
    let mut maybe_done = false;
    loop {
        let target = node.leader();
        let result = match target {
            Some(id) if id == node.id => write(node, bytes.clone(), deadline).await,
            Some(id) => {
                let left = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
                match node.peers.ask(id, Request::Propose(bytes.clone()), left).await {
                    Ok(Reply::Outcome(outcome)) => Ok(*outcome),
                    Ok(_) => Err(PeerError::NoAnswer("an answer of another kind".into())),
                    Err(error) => Err(error),
                }
            }
            None => Err(PeerError::NotLeader { leader: None }),
        };
        match result {
            Ok(outcome) => return End::Outcome(outcome),
            Err(PeerError::Refused(_)) => return End::Failed,
            Err(PeerError::NotLeader { .. } | PeerError::Unreachable(_)) => {}
            Err(PeerError::Stopped(_)) if target == Some(node.id) => return End::Unknown,
            Err(_) => maybe_done = true,
        }
        if Instant::now() + NO_LEADER >= deadline {
            return if maybe_done { End::Unknown } else { End::Failed };
        }
        tokio::time::sleep(NO_LEADER).await;
    }
}

/// A write, ready to be proposed.
pub(super) struct Write {
    pub(super) bytes: Vec<u8>,
    pub(super) request: u64,
    pub(super) name: &'static str,
    pub(super) power: Option<Power>,
}

fn entry(request: u64, command: &Command, power: Option<Power>) -> Write {
    let entry = Entry::new(long(request), Actor::System, 1_000, command, vec![vec![0xcc; 3]]).unwrap();
    Write { bytes: entry.to_bytes().unwrap(), request, name: command.name(), power }
}

/// The request id of an entry.
pub(super) fn request_of(bytes: &[u8]) -> u64 {
    short(Entry::from_bytes(bytes).unwrap().request_id)
}

/// How reads are made from now on.
pub(super) fn set_reads(request: u64, mode: ReadMode, timing: ReadTiming) -> Write {
    entry(request, &Command::SetReads(SetReads { mode, timing }), None)
}

/// Every vault's reads as its world's.
pub(super) fn plain_reads(rng: &mut Rng) -> Vec<Write> {
    let plain = |vault| Command::SetVaultReads(SetVaultReads { vault: vault_id(vault), mode: None });
    (0..VAULTS).map(|vault| entry(rng.next(), &plain(vault), None)).collect()
}

/// What is written first, in order.
pub(super) fn first_writes(rng: &mut Rng, timing: ReadTiming) -> Vec<Write> {
    let mut commands = vec![
        Command::InitWorld(InitWorld { world: Id128([9; 16]), region: "local".into() }),
        Command::PutSubscription(PutSubscription {
            subscription: SUBSCRIPTION,
            tenant: TENANT,
            display_name: "S".into(),
        }),
        Command::PutResourceGroup(PutResourceGroup {
            subscription: SUBSCRIPTION,
            name: "g".into(),
            location: "local".into(),
            tags: Tags::new(),
        }),
        Command::SetReads(SetReads { mode: ReadMode::Lease, timing }),
    ];
    for vault in 0..VAULTS {
        let name = format!("vault{vault}");
        commands.push(Command::CreateVault(CreateVault {
            id: vault_id(vault),
            name: VaultName::parse(&name).unwrap(),
            display_name: name,
            tenant: TENANT,
            subscription: SUBSCRIPTION,
            group: "g".into(),
            location: "local".into(),
            retention_days: 7,
            purge_protection: false,
            settings: VaultSettings::default(),
            policies: policies(&[true; PRINCIPALS]),
        }));
        commands.extend((0..OBJECTS).map(|object| put(vault, object, rng.next())));
    }
    commands.iter().map(|command| entry(rng.next(), command, None)).collect()
}

fn policies(may: &[bool]) -> Vec<AccessPolicy> {
    let of = may.iter().enumerate().filter(|(_, may)| **may);
    of.map(|(who, _)| AccessPolicy::everything(TENANT, principal(who))).collect()
}

fn put(vault: usize, at: usize, version: u64) -> Command {
    let (kind, name) = object(at);
    Command::PutVersion(PutVersion {
        vault: vault_id(vault),
        kind,
        name,
        origin: Origin::Create,
        version: long(version | 1),
        attributes: Attributes { enabled: true, not_before: None, expires: None },
        tags: Tags::new(),
        // What kind of thing it is does not matter here.
        content: Content::Secret { content_type: None },
    })
}

fn update(vault: usize, at: usize, enabled: bool) -> Command {
    let (kind, name) = object(at);
    Command::UpdateVersion(UpdateVersion {
        vault: vault_id(vault),
        kind,
        name,
        version: None,
        enabled: Some(enabled),
        not_before: None,
        expires: None,
        tags: None,
        key_ops: None,
        content_type: None,
        release_policy: None,
    })
}

/// A write that takes something away, or gives it back, or changes it.
pub(super) fn some_write(rng: &mut Rng) -> Write {
    let vault = usize::try_from(rng.below(VAULTS as u64)).unwrap();
    let at = usize::try_from(rng.below(OBJECTS as u64)).unwrap();
    let (kind, name) = object(at);
    let reference = ObjectRef { vault: vault_id(vault), kind, name };
    let of_object = |gives| Some(Power::Object { vault, object: at, gives });
    let may: Vec<bool> = (0..PRINCIPALS).map(|_| rng.chance(600)).collect();
    let of_vault = |gives: Vec<bool>| Some(Power::Vault { vault, gives });
    let vault_ref = VaultRef { vault: vault_id(vault) };
    let request = rng.next();
    let (command, power) = match rng.below(100) {
        0..30 => (put(vault, at, rng.next()), of_object(true)),
        30..45 => (update(vault, at, false), of_object(false)),
        45..60 => (update(vault, at, true), of_object(true)),
        60..70 => (Command::DeleteObject(reference), of_object(false)),
        70..80 => (Command::RecoverObject(reference), of_object(true)),
        80..90 => {
            let set = SetPolicies { vault: vault_id(vault), seen: None, policies: policies(&may) };
            (Command::SetPolicies(set), of_vault(may))
        }
        90..95 => {
            let update = UpdateVault {
                vault: vault_id(vault),
                seen: None,
                settings: VaultSettings::default(),
                purge_protection: false,
                policies: policies(&may),
            };
            (Command::UpdateVault(update), of_vault(may))
        }
        95..96 => (Command::DeleteVault(vault_ref), of_vault(vec![false; PRINCIPALS])),
        96..99 => (Command::RecoverVault(vault_ref), of_vault(vec![true; PRINCIPALS])),
        _ => {
            let mode = rng.chance(500).then_some(ReadMode::ReadIndex);
            (Command::SetVaultReads(SetVaultReads { vault: vault_id(vault), mode }), None)
        }
    };
    entry(request, &command, power)
}
