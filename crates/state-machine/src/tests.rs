//! The state machine against a simple model, two replicas against each other, and golden bytes of every stored form.

use crate::kv::{MemKv, Read, Table};
use crate::{apply, read};
use claviger_types::alg::{Curve, Kty, PublicKey};
use claviger_types::command::*;
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::outcome::{Outcome, Refusal};
use claviger_types::permission::AccessPolicy;
use claviger_types::reads::{ReadMode, ReadTiming};
use claviger_types::role::{self, RoleDefinition, Scope};
use claviger_types::vault::{IpRule, NetworkAcls, VaultSettings};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const VAULT: Id128 = Id128([7; 16]);
const TENANT: Id128 = Id128([1; 16]);
const ALICE: Id128 = Id128([2; 16]);
const BOB: Id128 = Id128([4; 16]);
const SUBSCRIPTION: Id128 = Id128([3; 16]);
const SUB: &str = "/subscriptions/03030303-0303-0303-0303-030303030303";

fn id(n: u64) -> Id128 {
    let mut bytes = [0xab; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Id128(bytes)
}

fn entry(n: u64, actor: Actor, time_ms: u64, command: &Command, blobs: Vec<Vec<u8>>) -> Entry {
    Entry::new(id(n), actor, time_ms, command, blobs).unwrap()
}

fn group(name: &str) -> Command {
    Command::PutResourceGroup(PutResourceGroup {
        subscription: SUBSCRIPTION,
        name: name.into(),
        location: "local".into(),
        tags: Tags::new(),
    })
}

fn create_vault(id: Id128, name: &str) -> Command {
    Command::CreateVault(CreateVault {
        id,
        name: VaultName::parse(name).unwrap(),
        display_name: name.into(),
        tenant: TENANT,
        subscription: SUBSCRIPTION,
        group: "g".into(),
        location: "local".into(),
        retention_days: 7,
        purge_protection: false,
        settings: VaultSettings { premium: true, ..VaultSettings::default() },
        policies: vec![AccessPolicy::everything(TENANT, ALICE)],
    })
}

/// A state and its next index: what the tests of the management plane go on with.
struct World {
    kv: MemKv,
    index: u64,
    now: u64,
}

impl World {
    fn new() -> Self {
        let (kv, index) = setup();
        Self { kv, index, now: 1_000 }
    }

    fn by(&mut self, actor: Actor, command: Command) -> Outcome {
        self.index += 1;
        let e = entry(self.index, actor, self.now * 1_000, &command, vec![vec![0xcc; 3]]);
        apply(&mut self.kv, self.index, &e).unwrap()
    }

    fn system(&mut self, command: Command) -> Outcome {
        self.by(Actor::System, command)
    }

    /// Gives a built-in role.
    fn assign(&mut self, id: u8, role: &str, scope: &str, principal: Id128) -> Command {
        let command = Command::PutRoleAssignment(PutRoleAssignment {
            id: Id128([id; 16]),
            scope: Scope::parse(scope).unwrap(),
            role: role::built_in().iter().find(|r| r.name == role).unwrap().id,
            principal,
            principal_kind: PrincipalKind::ServicePrincipal,
            description: None,
        });
        assert_eq!(self.system(command.clone()), Outcome::Done);
        command
    }
}

fn user(oid: Id128, upn: &str, password: Option<&str>) -> Command {
    let password = password.map(str::to_owned);
    let display_name = upn.to_owned();
    Command::CreateUser(CreateUser { tenant: TENANT, oid, upn: upn.into(), display_name, password, enabled: true })
}

fn application(app: Id128) -> Command {
    let display_name = "a".into();
    Command::PutApplication(PutApplication {
        tenant: TENANT,
        app,
        object: app,
        oid: app,
        has_principal: true,
        display_name,
    })
}

fn federated(app: Id128, n: u64, name: &str, subject: &str) -> Command {
    let credential = FederatedCredential {
        id: id(n),
        name: name.into(),
        issuer: "https://issuer.test".into(),
        subject: subject.into(),
        audiences: vec!["api://AzureADTokenExchange".into()],
        description: String::new(),
    };
    Command::PutFederatedCredential(PutFederatedCredential { tenant: TENANT, app, credential })
}

fn approve(code: u8, oid: Id128, expires: u64) -> Command {
    Command::ApproveDevice(ApproveDevice { code: [code; 32], user: PrincipalRef { tenant: TENANT, oid }, expires })
}

fn bob() -> Actor {
    Actor::Principal { tenant: TENANT, oid: BOB }
}

fn setup() -> (MemKv, u64) {
    let mut kv = MemKv::default();
    let commands = [
        Command::InitWorld(InitWorld { world: Id128([9; 16]), region: "local".into() }),
        Command::PutSubscription(PutSubscription {
            subscription: SUBSCRIPTION,
            tenant: TENANT,
            display_name: "S".into(),
        }),
        group("G"),
        create_vault(VAULT, "demo"),
    ];
    for (i, command) in (1u64..).zip(&commands) {
        let outcome = apply(&mut kv, i, &entry(i, Actor::System, 1_000, command, vec![vec![0xee; 4]])).unwrap();
        assert_eq!(outcome, Outcome::Done);
    }
    (kv, 4)
}

fn alice() -> Actor {
    Actor::Principal { tenant: TENANT, oid: ALICE }
}

fn secret(name: &str, version: u64) -> Command {
    Command::PutVersion(PutVersion {
        vault: VAULT,
        kind: Kind::Secret,
        name: ObjectName::parse(name).unwrap(),
        origin: Origin::Create,
        version: id(version),
        attributes: Attributes { enabled: true, not_before: None, expires: None },
        tags: Tags::new(),
        content: Content::Secret { content_type: None },
    })
}

fn object(name: &str) -> ObjectRef {
    ObjectRef { vault: VAULT, kind: Kind::Secret, name: ObjectName::parse(name).unwrap() }
}

fn state_hash(kv: &MemKv) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (table, key, value) in kv.rows() {
        for part in [table.name().as_bytes(), key, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

#[derive(Debug, Clone)]
enum Op {
    Put(u8),
    Disable(u8),
    Delete(u8),
    Recover(u8),
    Purge(u8),
    Retry,
    Stranger(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0u8..4;
    prop_oneof![
        4 => name.clone().prop_map(Op::Put),
        2 => name.clone().prop_map(Op::Disable),
        2 => name.clone().prop_map(Op::Delete),
        1 => name.clone().prop_map(Op::Recover),
        1 => name.clone().prop_map(Op::Purge),
        1 => Just(Op::Retry),
        1 => name.prop_map(Op::Stranger),
    ]
}

/// What a secret is, told in the simplest way.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    versions: Vec<(Id128, bool)>,
    deleted: bool,
}

fn command_of(op: &Op, n: u64) -> Command {
    let name = |i: &u8| format!("Name-{i}");
    match op {
        Op::Put(i) | Op::Stranger(i) => secret(&name(i), n),
        Op::Disable(i) => Command::UpdateVersion(UpdateVersion {
            vault: VAULT,
            kind: Kind::Secret,
            name: ObjectName::parse(&name(i)).unwrap(),
            version: None,
            enabled: Some(false),
            not_before: None,
            expires: None,
            tags: None,
            key_ops: None,
            content_type: None,
            release_policy: None,
        }),
        Op::Delete(i) => Command::DeleteObject(object(&name(i))),
        Op::Recover(i) => Command::RecoverObject(object(&name(i))),
        Op::Purge(i) => Command::PurgeObject(object(&name(i))),
        Op::Retry => unreachable!("made by the caller"),
    }
}

/// Applies an operation to the model; answers the refusal that the state machine must give.
fn expect(model: &mut BTreeMap<u8, Model>, op: &Op, n: u64) -> Option<Refusal> {
    match op {
        Op::Put(i) => {
            let m = model.entry(*i).or_default();
            if m.deleted {
                return Some(Refusal::DeletedButRecoverable);
            }
            m.versions.push((id(n), true));
            None
        }
        Op::Stranger(_) => Some(Refusal::Forbidden),
        Op::Disable(i) => match model.get_mut(i).filter(|m| !m.deleted) {
            Some(m) => {
                m.versions.last_mut().unwrap().1 = false;
                None
            }
            None => Some(Refusal::NotFound),
        },
        Op::Delete(i) => match model.get_mut(i).filter(|m| !m.deleted) {
            Some(m) => {
                m.deleted = true;
                None
            }
            None => Some(Refusal::NotFound),
        },
        Op::Recover(i) => match model.get_mut(i).filter(|m| m.deleted) {
            Some(m) => {
                m.deleted = false;
                None
            }
            None => Some(Refusal::DeletedNotFound),
        },
        Op::Purge(i) => {
            if model.get(i).is_some_and(|m| m.deleted) {
                model.remove(i);
                None
            } else {
                Some(Refusal::DeletedNotFound)
            }
        }
        Op::Retry => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random commands: outcomes and state agree with the model, a retry gives the first outcome, a second replica that is
    /// restored from a copy in the middle ends with the same bytes.
    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(op(), 1..60), copy_at in 0usize..60) {
        let (mut kv, mut index) = setup();
        let mut other: Option<MemKv> = None;
        let mut log: Vec<(u64, Entry)> = Vec::new();
        let mut model: BTreeMap<u8, Model> = BTreeMap::new();
        let mut last: Option<(Entry, Outcome)> = None;
        for (step, op) in ops.iter().enumerate() {
            if step == copy_at {
                other = Some(kv.clone());
                log.clear();
            }
            index += 1;
            if let Op::Retry = op {
                if let Some((mut again, first)) = last.clone() {
                    again.time_ms += 5;
                    prop_assert_eq!(&apply(&mut kv, index, &again).unwrap(), &first);
                    log.push((index, again));
                }
                continue;
            }
            let actor = if let Op::Stranger(_) = op { Actor::Principal { tenant: TENANT, oid: id(1) } } else { alice() };
            let e = entry(1000 + index, actor, 1_000 * index, &command_of(op, index), vec![vec![step as u8; 8]]);
            let outcome = apply(&mut kv, index, &e).unwrap();
            match expect(&mut model, op, index) {
                Some(refusal) => prop_assert_eq!(&outcome, &Outcome::Refused(refusal)),
                None => prop_assert!(!matches!(outcome, Outcome::Refused(_)), "{:?}", outcome),
            }
            last = Some((e.clone(), outcome));
            log.push((index, e));
        }
        for i in 0u8..4 {
            let folded = format!("name-{i}");
            let live = read::all_versions(&kv, VAULT, Kind::Secret, &folded, 500).unwrap();
            let live = live.map(|vs| vs.iter().map(|v| (v.version, v.attributes.enabled)).collect::<Vec<_>>());
            let want = model.get(&i).filter(|m| !m.deleted).map(|m| m.versions.clone());
            prop_assert_eq!(live, want);
            let deleted = read::deleted(&kv, VAULT, Kind::Secret, &folded).unwrap().is_some();
            prop_assert_eq!(deleted, model.get(&i).is_some_and(|m| m.deleted));
        }
        let material = kv.scan(Table::Material, &[], &[0xff; 64], 10_000).unwrap().len();
        prop_assert_eq!(material, model.values().map(|m| m.versions.len()).sum::<usize>());
        if let Some(mut other) = other {
            for (i, e) in &log {
                apply(&mut other, *i, e).unwrap();
            }
            prop_assert_eq!(state_hash(&other), state_hash(&kv));
            prop_assert!(other == kv);
        }
    }
}

#[test]
fn lists_page_by_page() {
    let (mut kv, mut index) = setup();
    for i in 0..60 {
        index += 1;
        let name = format!("n{i:03}");
        apply(&mut kv, index, &entry(index, alice(), 5_000, &secret(&name, index), vec![vec![1]])).unwrap();
    }
    let (mut from, mut seen) = (String::new(), Vec::new());
    loop {
        let page = read::list(&kv, VAULT, Kind::Secret, &from, 25).unwrap();
        assert!(page.items.len() <= 25);
        seen.extend(page.items.into_iter().map(|v| v.name.to_string()));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen, (0..60).map(|i| format!("n{i:03}")).collect::<Vec<_>>());
    assert!(read::list(&kv, VAULT, Kind::Key, "", 25).unwrap().items.is_empty());
}

#[test]
fn the_clock_never_runs_backwards_and_purge_waits_for_it() {
    let (mut kv, _) = setup();
    let day = 86_400_000;
    apply(&mut kv, 13, &entry(13, alice(), 100 * day, &secret("s", 3), vec![vec![1]])).unwrap();
    apply(&mut kv, 14, &entry(14, alice(), 50 * day, &Command::DeleteObject(object("S")), vec![])).unwrap();
    let (_, deletion) = read::deleted(&kv, VAULT, Kind::Secret, "s").unwrap().unwrap();
    assert_eq!((deletion.deleted, deletion.purge), (100 * 86_400, 107 * 86_400));

    let purge = Command::PurgeObject(object("s"));
    let early = apply(&mut kv, 15, &entry(15, Actor::System, 106 * day, &purge, vec![])).unwrap();
    assert_eq!(early, Outcome::Refused(Refusal::NotDue));
    assert!(read::due(&kv, 106 * 86_400, 10).unwrap().is_empty());
    assert_eq!(read::due(&kv, 107 * 86_400, 10).unwrap().len(), 1);
    let late = apply(&mut kv, 16, &entry(16, Actor::System, 107 * day, &purge, vec![])).unwrap();
    assert_eq!(late, Outcome::Done);
    assert!(read::due(&kv, u64::MAX - 1, 10).unwrap().is_empty());
}

const DAY: u64 = 86_400;

fn key_ref(name: &str) -> ObjectRef {
    ObjectRef { vault: VAULT, kind: Kind::Key, name: ObjectName::parse(name).unwrap() }
}

/// A world with one key, whose commands come day by day.
struct Keys {
    kv: MemKv,
    index: u64,
}

impl Keys {
    fn new() -> Self {
        let (kv, index) = setup();
        Self { kv, index }
    }

    fn at(&mut self, day: u64, actor: Actor, command: &Command) -> Outcome {
        self.index += 1;
        let e = entry(self.index, actor, day * DAY * 1000, command, vec![vec![1]]);
        apply(&mut self.kv, self.index, &e).unwrap()
    }

    fn put(version: u64, expires: Option<u64>) -> PutVersion {
        PutVersion {
            vault: VAULT,
            kind: Kind::Key,
            name: ObjectName::parse("K").unwrap(),
            origin: Origin::Create,
            version: id(version),
            attributes: Attributes { enabled: true, not_before: None, expires: expires.map(|day| day * DAY) },
            tags: Tags::new(),
            content: Content::Key {
                kty: Kty::Oct,
                public: PublicKey::Oct { bits: 256 },
                key_ops: vec![],
                exportable: false,
                release_policy: None,
            },
        }
    }

    fn policy(&mut self, day: u64, rotate: Option<RotateTrigger>, notify: &str) {
        let policy =
            RotationPolicy { expiry_time: None, rotate, notify_before_expiry: notify.into(), created: 0, updated: 0 };
        let set = SetRotationPolicy { object: key_ref("k"), policy: Some(policy) };
        assert!(matches!(self.at(day, alice(), &Command::SetRotationPolicy(set)), Outcome::Rotation(Some(_))));
    }

    fn update(&mut self, day: u64, enabled: Option<bool>, expires: Option<u64>) {
        let update = UpdateVersion {
            vault: VAULT,
            kind: Kind::Key,
            name: ObjectName::parse("k").unwrap(),
            version: None,
            enabled,
            not_before: None,
            expires: expires.map(|day| day * DAY),
            tags: None,
            key_ops: None,
            content_type: None,
            release_policy: None,
        };
        assert!(matches!(self.at(day, alice(), &Command::UpdateVersion(update)), Outcome::Version(_)));
    }

    /// What is due by the end of days, as (day, what, version).
    fn due(&self) -> Vec<(u64, crate::rotation::Due, Id128)> {
        let rows = read::rotation_due(&self.kv, u64::MAX - 1, &[], 100).unwrap();
        rows.into_iter().map(|row| (row.time / DAY, row.due, row.version)).collect()
    }

    fn rotate(&mut self, day: u64, version: u64, newest: u64) -> Outcome {
        let command = RotateDue { put: Self::put(version, None), newest: id(newest) };
        self.at(day, Actor::System, &Command::RotateDue(command))
    }

    fn tell(&mut self, day: u64, newest: u64) -> Outcome {
        let command = NoteNearExpiry { object: key_ref("k"), newest: id(newest) };
        self.at(day, Actor::System, &Command::NoteNearExpiry(command))
    }
}

#[test]
fn rotation_falls_due_once() {
    use crate::rotation::Due;
    let not_due = Outcome::Refused(Refusal::NotDue);
    let mut keys = Keys::new();
    keys.at(100, alice(), &Command::PutVersion(Keys::put(1, None)));
    assert_eq!(keys.due(), []);
    keys.policy(101, Some(RotateTrigger::AfterCreate("P30D".into())), "P30D");
    assert_eq!(keys.due(), [(130, Due::Rotate, id(1))]);
    assert!(read::rotation_due(&keys.kv, 130 * DAY - 1, &[], 9).unwrap().is_empty());

    assert_eq!(keys.rotate(129, 2, 1), not_due, "too early");
    assert_eq!(keys.rotate(130, 2, 7), not_due, "decided on another version");
    let stranger = Command::RotateDue(RotateDue { put: Keys::put(2, None), newest: id(1) });
    assert_eq!(keys.at(130, alice(), &stranger), Outcome::Refused(Refusal::Forbidden));
    assert!(matches!(keys.rotate(130, 2, 1), Outcome::Version(_)));
    assert_eq!(keys.due(), [(160, Due::Rotate, id(2))]);
    assert_eq!(keys.rotate(130, 3, 1), not_due, "twice");
    assert_eq!(keys.rotate(170, 3, 1), not_due, "twice, and late");

    keys.update(170, Some(false), None);
    assert_eq!(keys.due(), [], "switched off");
    assert_eq!(keys.rotate(170, 3, 2), not_due);
    keys.update(170, Some(true), None);
    assert_eq!(keys.due(), [(160, Due::Rotate, id(2))]);

    keys.at(171, alice(), &Command::DeleteObject(key_ref("k")));
    assert_eq!(keys.due(), []);
    assert_eq!(keys.rotate(171, 3, 2), not_due);
    keys.at(172, alice(), &Command::RecoverObject(key_ref("k")));
    assert_eq!(keys.due(), [(160, Due::Rotate, id(2))]);
    // A rotation by hand moves the date.
    keys.at(172, alice(), &Command::PutVersion(PutVersion { origin: Origin::Rotate, ..Keys::put(4, None) }));
    assert_eq!(keys.due(), [(202, Due::Rotate, id(4))]);
    keys.at(173, alice(), &Command::SetRotationPolicy(SetRotationPolicy { object: key_ref("k"), policy: None }));
    assert_eq!(keys.due(), []);
    assert!(keys.kv.scan(Table::Rotation, &[], &[0xff], 9).unwrap().is_empty());
}

#[test]
fn near_expiry_is_told_once_for_each_expiry() {
    use crate::rotation::Due;
    let not_due = Outcome::Refused(Refusal::NotDue);
    let mut keys = Keys::new();
    keys.at(100, alice(), &Command::PutVersion(Keys::put(1, Some(200))));
    assert_eq!(keys.due(), [(170, Due::NearExpiry, id(1))], "30 days without a policy");
    keys.policy(101, Some(RotateTrigger::BeforeExpiry("P20D".into())), "P10D");
    assert_eq!(keys.due(), [(180, Due::Rotate, id(1)), (190, Due::NearExpiry, id(1))]);
    let rows = read::rotation_due(&keys.kv, u64::MAX - 1, &[], 1).unwrap();
    let next = read::rotation_due(&keys.kv, u64::MAX - 1, &rows[0].key, 9).unwrap();
    assert_eq!((next.len(), next[0].due), (1, Due::NearExpiry), "page by page");

    assert_eq!(keys.tell(189, 1), not_due);
    assert_eq!(keys.tell(190, 1), Outcome::Done);
    assert_eq!(keys.tell(190, 1), not_due, "twice");
    assert_eq!(keys.due(), [(180, Due::Rotate, id(1))]);
    keys.update(191, Some(true), None);
    assert_eq!(keys.tell(191, 1), not_due, "another change is no reason to tell again");
    keys.update(192, None, Some(270));
    assert_eq!(keys.due(), [(250, Due::Rotate, id(1)), (260, Due::NearExpiry, id(1))]);
    assert_eq!(keys.tell(265, 1), Outcome::Done);

    let told = read::notices(&keys.kv, 0, 10).unwrap();
    let told: Vec<_> = told.iter().map(|(_, n)| (n.name.to_string(), n.time / DAY, n.expires / DAY)).collect();
    assert_eq!(told, [("K".into(), 190, 200), ("K".into(), 265, 270)]);
    // Old events go when new ones come.
    keys.update(266, None, Some(400));
    assert_eq!(keys.tell(399, 1), Outcome::Done);
    assert_eq!(read::notices(&keys.kv, 0, 10).unwrap().len(), 1);
    keys.at(400, alice(), &Command::DeleteObject(key_ref("k")));
    keys.at(400, alice(), &Command::PurgeObject(key_ref("k")));
    assert!(keys.kv.scan(Table::Rotation, &[], &[0xff], 9).unwrap().is_empty());
}

#[test]
fn an_unknown_command_stops_the_node() {
    let (mut kv, _) = setup();
    let mut e = entry(5, alice(), 1, &secret("s", 5), vec![]);
    e.cmd_v = 99;
    assert!(apply(&mut kv, 5, &e).unwrap_err().to_string().starts_with("UNKNOWN_COMMAND"));
}

/// The stored bytes of a fixed history: entries, rows, chain. A change here breaks old data directories.
#[test]
fn golden_bytes() {
    let (mut kv, _) = setup();
    let key = Command::PutVersion(PutVersion {
        vault: VAULT,
        kind: Kind::Key,
        name: ObjectName::parse("K-1").unwrap(),
        origin: Origin::Create,
        version: id(3),
        attributes: Attributes { enabled: true, not_before: Some(5), expires: Some(6) },
        tags: Tags::from([("a".into(), "b".into())]),
        content: Content::Key {
            kty: Kty::Ec,
            public: PublicKey::Ec { curve: Curve::P256, x: vec![1; 32], y: vec![2; 32] },
            key_ops: vec!["sign".into()],
            exportable: false,
            release_policy: None,
        },
    });
    let update = command_of(&Op::Disable(1), 0);
    let restore = Command::RestoreObject(RestoreObject {
        object: object("r"),
        versions: vec![RestoredVersion {
            version: id(8),
            created: 1,
            updated: 2,
            attributes: Attributes { enabled: false, not_before: None, expires: None },
            tags: Tags::new(),
            content: Content::Secret { content_type: Some("t".into()) },
        }],
        rotation: None,
    });
    let rotation = RotationPolicy {
        expiry_time: Some("P90D".into()),
        rotate: Some(RotateTrigger::AfterCreate("P30D".into())),
        notify_before_expiry: "P30D".into(),
        created: 0,
        updated: 0,
    };
    let rotation = Command::SetRotationPolicy(SetRotationPolicy {
        object: ObjectRef { vault: VAULT, kind: Kind::Key, name: ObjectName::parse("k-1").unwrap() },
        policy: Some(rotation),
    });
    let Command::PutVersion(due) = key.clone() else { unreachable!("it is one") };
    let due = PutVersion { origin: Origin::Rotate, version: id(9), ..due };
    let others = [
        Command::SetPolicies(SetPolicies { vault: VAULT, seen: None, policies: vec![] }),
        Command::PutApplication(PutApplication {
            tenant: TENANT,
            app: id(1),
            object: id(2),
            oid: ALICE,
            has_principal: true,
            display_name: "app".into(),
        }),
        Command::AddClientSecret(AddClientSecret {
            tenant: TENANT,
            app: id(1),
            secret: ClientSecret {
                id: id(3),
                hash: "$hash".into(),
                hint: "abc".into(),
                display_name: "s".into(),
                start: 1,
                end: Some(2),
            },
        }),
        Command::RemoveClientSecret(RemoveClientSecret { tenant: TENANT, app: id(1), id: id(4) }),
        Command::SetCertificates(SetCertificates {
            tenant: TENANT,
            app: id(1),
            certificates: vec![ClientCertificate {
                id: id(8),
                der: vec![0x30],
                public: PublicKey::Rsa { n: vec![3; 4], e: vec![1, 0, 1] },
                display_name: "c".into(),
                start: 1,
                end: 2,
            }],
        }),
        Command::DeleteApplication(DeleteApplication { tenant: TENANT, app: id(1) }),
        Command::PutUser(PutUser { tenant: TENANT, oid: BOB, upn: "b@a.test".into(), display_name: "B".into() }),
        Command::PutGroup(PutGroup { tenant: TENANT, oid: id(5), display_name: "G".into() }),
        Command::SetMember(SetMember { tenant: TENANT, group: id(5), member: BOB, present: true }),
        Command::UpdateVault(UpdateVault {
            vault: VAULT,
            seen: None,
            settings: VaultSettings {
                network: Some(NetworkAcls {
                    allow_by_default: false,
                    bypass_services: true,
                    ip_rules: vec![IpRule::parse("10.0.0.0/8").unwrap()],
                    subnet_ids: vec![],
                }),
                ..VaultSettings::default()
            },
            purge_protection: false,
            policies: vec![AccessPolicy::everything(TENANT, ALICE)],
        }),
        Command::DeleteVault(VaultRef { vault: VAULT }),
        Command::RecoverVault(VaultRef { vault: VAULT }),
        group("H"),
        Command::DeleteResourceGroup(DeleteResourceGroup { subscription: SUBSCRIPTION, name: "h".into() }),
        Command::PutRoleDefinition(PutRoleDefinition {
            scope: Scope::parse(SUB).unwrap(),
            role: RoleDefinition {
                id: id(7),
                name: "Custom".into(),
                description: "d".into(),
                actions: vec!["*/read".into()],
                not_actions: vec![],
                data_actions: vec!["Microsoft.KeyVault/vaults/*".into()],
                not_data_actions: vec!["Microsoft.KeyVault/vaults/keys/sign/action".into()],
                assignable_scopes: vec![SUB.into()],
            },
        }),
        Command::PutRoleAssignment(PutRoleAssignment {
            id: id(6),
            scope: Scope::parse(SUB).unwrap(),
            role: id(7),
            principal: BOB,
            principal_kind: PrincipalKind::User,
            description: Some("why".into()),
        }),
        Command::DeleteRoleAssignment(DeleteRoleAssignment {
            id: id(6),
            scope: Scope::parse(SUB).unwrap(),
            principal: BOB,
        }),
        Command::DeleteRoleDefinition(DeleteRoleDefinition { scope: Scope::parse(SUB).unwrap(), id: id(7) }),
        create_vault(id(9), "gone"),
        Command::DeleteVault(VaultRef { vault: id(9) }),
        Command::PutTenant(PutTenant { tenant: TENANT, domain: "a.test".into(), display_name: "A".into() }),
        Command::PutSubscription(PutSubscription {
            subscription: Id128([3; 16]),
            tenant: TENANT,
            display_name: "S".into(),
        }),
        Command::PutTokenKey(PutTokenKey {
            kid: "kid".into(),
            public: PublicKey::Rsa { n: vec![3; 4], e: vec![1, 0, 1] },
        }),
        Command::NoteNearExpiry(NoteNearExpiry { object: key_ref("k-1"), newest: id(3) }),
        Command::RotateDue(RotateDue { put: due.clone(), newest: id(3) }),
        Command::SetReads(SetReads { mode: ReadMode::Lease, timing: ReadTiming::default() }),
        Command::SetVaultReads(SetVaultReads { vault: VAULT, mode: Some(ReadMode::ReadIndex) }),
        Command::NoteEmergency(NoteEmergency { node: 1, statement: "s".into(), approver: "a".into() }),
        user(id(20), "C@a.test", Some("$hash")),
        user(id(21), "d@a.test", None),
        Command::UpdateUser(UpdateUser {
            tenant: TENANT,
            oid: id(20),
            display_name: Some("C".into()),
            password: Some("$other".into()),
            enabled: Some(true),
        }),
        Command::DeleteUser(PrincipalRef { tenant: TENANT, oid: id(21) }),
        Command::PutGroup(PutGroup { tenant: TENANT, oid: id(22), display_name: "Gone".into() }),
        Command::DeleteGroup(PrincipalRef { tenant: TENANT, oid: id(22) }),
        application(id(23)),
        federated(id(23), 1, "one", "s1"),
        federated(id(23), 2, "two", "s2"),
        Command::DeleteFederatedCredential(DeleteFederatedCredential { tenant: TENANT, app: id(23), id: id(2) }),
        approve(1, id(20), 1_000_000_900),
        approve(2, id(20), 1_000_000_900),
        Command::TakeDevice(TakeDevice { code: [2; 32] }),
        Command::NoteDisk(NoteDisk { node: 1, disk: id(9) }),
    ];
    let commands = [
        key,
        rotation,
        secret("name-1", 4),
        update,
        Command::DeleteObject(object("name-1")),
        Command::RecoverObject(object("name-1")),
        restore,
    ]
    .into_iter()
    .chain([Command::DeleteObject(object("r")), Command::PurgeObject(object("r"))]);
    let mut text = String::new();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    for (index, (actor, command)) in
        (5u64..).zip(commands.map(|c| (alice(), c)).chain(others.into_iter().map(|c| (Actor::System, c))))
    {
        // The system's commands come years later, so that what falls due has done so.
        let time_ms = if actor == Actor::System { 1_000_000_000_000 } else { 1_000 * index };
        let e = entry(index, actor, time_ms, &command, vec![vec![0xcc; 3]]);
        let bytes = e.to_bytes().unwrap();
        assert_eq!(Entry::from_bytes(&bytes).unwrap(), e);
        let outcome = apply(&mut kv, index, &e).unwrap();
        assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
        text += &format!("entry {} {}\n", command.name(), hex(&bytes));
    }
    for (table, key, value) in kv.rows() {
        text += &format!("{} {} {}\n", table.name(), hex(key), hex(value));
    }
    let (tenant, oid) = (TENANT, BOB);
    for actor in [
        Actor::System,
        bob(),
        Actor::Delegated { tenant, oid, app: id(1) },
        Actor::External { tenant, oid, groups: vec![id(1), id(2)] },
    ] {
        text += &format!("actor {}\n", hex(&claviger_types::codec::encode(&actor).unwrap()));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/history-v1.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let want = std::fs::read_to_string(path).unwrap();
    assert!(text == want, "stored bytes changed; see {path}. A new meaning needs a new command or format number");
}

#[test]
fn a_deleted_vault_is_out_of_reach_and_comes_back_whole() {
    let mut w = World::new();
    assert!(matches!(w.by(alice(), secret("s", 1)), Outcome::Version(_)));
    let expiring = Command::PutVersion(Keys::put(9, Some(w.now / DAY + 1)));
    assert!(matches!(w.by(alice(), expiring), Outcome::Version(_)));
    let tell = Command::NoteNearExpiry(NoteNearExpiry { object: key_ref("k"), newest: id(9) });
    let vault = VaultRef { vault: VAULT };
    assert_eq!(w.system(Command::RecoverVault(vault.clone())), Outcome::Refused(Refusal::VaultNotDeleted));
    assert_eq!(w.system(Command::DeleteVault(vault.clone())), Outcome::Done);
    assert_eq!(w.by(alice(), secret("t", 2)), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(w.system(secret("t", 2)), Outcome::Refused(Refusal::VaultNotFound));
    assert_eq!(w.system(tell.clone()), Outcome::Refused(Refusal::NotDue));
    assert_eq!(w.system(create_vault(id(1), "Demo")), Outcome::Refused(Refusal::VaultDeleted));
    assert_eq!(w.system(Command::DeleteVault(vault.clone())), Outcome::Refused(Refusal::VaultNotFound));
    assert_eq!(w.system(Command::RecoverVault(vault)), Outcome::Done);
    assert_eq!(w.system(tell), Outcome::Done);
    assert_eq!(w.system(create_vault(id(1), "Demo")), Outcome::Refused(Refusal::VaultExists));
    assert!(read::live(&w.kv, VAULT, Kind::Secret, "s", None).unwrap().is_some());
    assert!(matches!(w.by(alice(), secret("t", 2)), Outcome::Version(_)));
    assert!(read::vaults_due(&w.kv, u64::MAX - 1, 9).unwrap().is_empty());
}

#[test]
fn a_purged_vault_leaves_nothing_behind() {
    let mut w = World::new();
    let clean = |kv: &MemKv| {
        let left = [
            Table::Objects,
            Table::Deleted,
            Table::Due,
            Table::Versions,
            Table::Material,
            Table::Policies,
            Table::Rotation,
        ];
        left.iter().all(|table| kv.scan(*table, &[], &[0xff; 64], 9).unwrap().is_empty())
    };
    let w_day = w.now / DAY + 1;
    for n in 0..1_100u64 {
        assert!(matches!(w.by(alice(), secret(&format!("s{n}"), n)), Outcome::Version(_)));
    }
    assert!(matches!(w.by(alice(), Command::DeleteObject(object("s1"))), Outcome::Deleted(..)));
    // A key whose expiry was told of, and that falls due again.
    let expiring = |version| Command::PutVersion(Keys::put(version, Some(w_day + version)));
    assert!(matches!(w.by(alice(), expiring(1)), Outcome::Version(_)));
    let tell = NoteNearExpiry { object: key_ref("k"), newest: id(1) };
    assert_eq!(w.system(Command::NoteNearExpiry(tell)), Outcome::Done);
    assert!(matches!(w.by(alice(), expiring(2)), Outcome::Version(_)));
    w.assign(
        1,
        "Key Vault Administrator",
        &format!("{SUB}/resourceGroups/g/providers/Microsoft.KeyVault/vaults/demo/keys/k"),
        BOB,
    );
    w.assign(2, "Owner", SUB, BOB);
    let vault = VaultRef { vault: VAULT };
    assert_eq!(w.system(Command::PurgeVault(vault.clone())), Outcome::Refused(Refusal::VaultNotDeleted));
    assert_eq!(w.system(Command::DeleteVault(vault.clone())), Outcome::Done);
    assert_eq!(w.system(Command::PurgeVault(vault.clone())), Outcome::Refused(Refusal::NotDue));
    assert_eq!(w.by(alice(), Command::PurgeVault(vault.clone())), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(read::vaults_due(&w.kv, w.now + 7 * 86_400, 9).unwrap(), [VAULT]);
    assert_eq!(w.by(bob(), Command::PurgeVault(vault.clone())), Outcome::Done);
    assert_eq!(read::vault(&w.kv, VAULT).unwrap(), None);
    assert_eq!(read::assignments(&w.kv).unwrap().len(), 1);
    assert_eq!(w.system(create_vault(VAULT, "other")), Outcome::Refused(Refusal::VaultExists));
    assert_eq!(w.by(bob(), Command::EraseVault(vault.clone())), Outcome::Refused(Refusal::Forbidden));
    let mut steps = 0;
    while !read::erasures(&w.kv, 9).unwrap().is_empty() {
        assert_eq!(w.system(Command::EraseVault(vault.clone())), Outcome::Done);
        steps += 1;
    }
    assert_eq!(steps, 4);
    assert!(clean(&w.kv));
    assert!(read::vaults_due(&w.kv, u64::MAX - 1, 9).unwrap().is_empty());
    assert_eq!(w.system(create_vault(id(1), "demo")), Outcome::Done);
}

#[test]
fn purge_protection_holds_until_the_end() {
    let mut w = World::new();
    w.assign(2, "Owner", SUB, BOB);
    let update = |purge_protection| {
        Command::UpdateVault(UpdateVault {
            vault: VAULT,
            seen: None,
            settings: VaultSettings::default(),
            purge_protection,
            policies: vec![],
        })
    };
    assert_eq!(w.by(bob(), update(true)), Outcome::Done);
    assert_eq!(w.by(bob(), update(false)), Outcome::Done);
    let vault = VaultRef { vault: VAULT };
    assert_eq!(w.by(bob(), Command::DeleteVault(vault.clone())), Outcome::Done);
    assert_eq!(w.by(bob(), Command::PurgeVault(vault.clone())), Outcome::Refused(Refusal::PurgeProtected));
    w.now += 7 * 86_400;
    assert_eq!(w.system(Command::PurgeVault(vault)), Outcome::Done);
}

#[test]
fn the_vault_says_whether_policies_or_roles_decide() {
    let mut w = World::new();
    let vault = "/resourcegroups/G/providers/microsoft.keyvault/vaults/DEMO";
    w.assign(1, "Key Vault Secrets Officer", &format!("{SUB}{vault}/secrets/Mine"), BOB);
    let settings = |rbac| {
        Command::UpdateVault(UpdateVault {
            vault: VAULT,
            seen: None,
            settings: VaultSettings { rbac, ..VaultSettings::default() },
            purge_protection: false,
            policies: vec![AccessPolicy::everything(TENANT, ALICE)],
        })
    };
    assert!(matches!(w.by(alice(), secret("mine", 1)), Outcome::Version(_)));
    assert_eq!(w.by(bob(), secret("mine", 2)), Outcome::Refused(Refusal::Forbidden));
    // Who may not assign roles may not choose the model.
    let contributor = id(40);
    w.assign(2, "Key Vault Contributor", SUB, contributor);
    let by = Actor::Principal { tenant: TENANT, oid: contributor };
    assert_eq!(w.by(by.clone(), settings(true)), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(w.by(by, settings(false)), Outcome::Done);
    w.system(settings(true));
    assert_eq!(w.by(alice(), secret("mine", 3)), Outcome::Refused(Refusal::Forbidden));
    assert!(matches!(w.by(bob(), secret("mine", 4)), Outcome::Version(_)));
    assert_eq!(w.by(bob(), secret("minelike", 5)), Outcome::Refused(Refusal::Forbidden));

    // A custom role takes back a part of what it gives; a group passes its roles on.
    let custom = RoleDefinition {
        id: id(9),
        name: "Writer".into(),
        description: String::new(),
        actions: vec![],
        not_actions: vec![],
        data_actions: vec!["Microsoft.KeyVault/vaults/secrets/*".into()],
        not_data_actions: vec!["Microsoft.KeyVault/vaults/secrets/delete".into()],
        assignable_scopes: vec![SUB.into()],
    };
    let scope = Scope::parse(SUB).unwrap();
    let define = Command::PutRoleDefinition(PutRoleDefinition { scope: scope.clone(), role: custom });
    assert_eq!(w.by(bob(), define.clone()), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(w.system(define), Outcome::Done);
    w.system(Command::PutGroup(PutGroup { tenant: TENANT, oid: id(5), display_name: "G".into() }));
    let assignment = PutRoleAssignment {
        id: id(6),
        scope: scope.clone(),
        role: id(9),
        principal: id(5),
        principal_kind: PrincipalKind::Group,
        description: None,
    };
    assert_eq!(w.system(Command::PutRoleAssignment(assignment.clone())), Outcome::Done);
    // The same again may say something else about itself; another one of the id is refused.
    let described = PutRoleAssignment { description: Some("for a reason".into()), ..assignment.clone() };
    let was = read::assignment(&w.kv, id(6)).unwrap().unwrap();
    w.now += 10;
    assert_eq!(w.system(Command::PutRoleAssignment(described)), Outcome::Done);
    let is = read::assignment(&w.kv, id(6)).unwrap().unwrap();
    assert_eq!(is, crate::records::RoleAssignment { description: Some("for a reason".into()), ..was });
    let other = PutRoleAssignment { principal: ALICE, ..assignment };
    assert_eq!(w.system(Command::PutRoleAssignment(other)), Outcome::Refused(Refusal::AssignmentExists));
    let member = |present| Command::SetMember(SetMember { tenant: TENANT, group: id(5), member: ALICE, present });
    w.system(member(true));
    assert!(matches!(w.by(alice(), secret("hers", 6)), Outcome::Version(_)));
    assert_eq!(w.by(alice(), Command::DeleteObject(object("hers"))), Outcome::Refused(Refusal::Forbidden));
    w.system(member(false));
    assert_eq!(w.by(alice(), secret("hers", 7)), Outcome::Refused(Refusal::Forbidden));
    let delete = Command::DeleteRoleDefinition(DeleteRoleDefinition { scope, id: id(9) });
    assert_eq!(w.system(delete), Outcome::Refused(Refusal::RoleInUse));
}

#[test]
fn management_takes_roles() {
    let mut w = World::new();
    let tags = |name: &str| group(name);
    let assign = |id: u8, role: &str, principal| {
        Command::PutRoleAssignment(PutRoleAssignment {
            id: Id128([id; 16]),
            scope: Scope::parse(SUB).unwrap(),
            role: role::built_in().iter().find(|r| r.name == role).unwrap().id,
            principal,
            principal_kind: PrincipalKind::User,
            description: None,
        })
    };
    let app = Command::PutApplication(PutApplication {
        tenant: TENANT,
        app: id(1),
        object: id(2),
        oid: id(3),
        has_principal: true,
        display_name: "a".into(),
    });
    let forbidden = Outcome::Refused(Refusal::Forbidden);
    // role, may write a group, may assign Owner, may assign a role for data, may change the directory
    let cases = [
        ("Owner", true, true, true, true),
        ("Contributor", true, false, false, false),
        ("Reader", false, false, false, false),
        ("User Access Administrator", false, true, true, true),
        ("Key Vault Data Access Administrator", false, false, true, false),
        ("Key Vault Administrator", false, false, false, false),
    ];
    for (n, (role, group, owner, data, directory)) in (10u8..).zip(cases) {
        let who = Id128([n; 16]);
        let actor = || Actor::Principal { tenant: TENANT, oid: who };
        assert_eq!(w.by(actor(), tags("x")), forbidden, "{role}");
        w.assign(n, role, SUB, who);
        let asked = [
            (tags("x"), group),
            (assign(100 + n, "Owner", id(u64::from(n))), owner),
            (assign(200 + n, "Key Vault Secrets User", id(u64::from(n))), data),
            (app.clone(), directory),
        ];
        for (command, want) in asked {
            let name = command.name();
            assert_eq!(w.by(actor(), command) == Outcome::Done, want, "{role} {name}");
        }
        let stranger = Actor::Principal { tenant: id(77), oid: who };
        assert_eq!(w.by(stranger, tags("x")), forbidden, "{role} of another tenant");
    }
}

#[test]
fn a_client_that_repeats_its_request_gets_the_first_outcome() {
    let mut world = World::new();
    let request = Id128::from_digest([7; 16]);
    let send = |world: &mut World, version: u64, seconds: u64| {
        world.index += 1;
        world.now += seconds;
        let mut e = entry(world.index, alice(), world.now * 1_000, &secret("s", version), vec![vec![version as u8; 3]]);
        e.request_id = request;
        match apply(&mut world.kv, world.index, &e).unwrap() {
            Outcome::Version(version) => version.version,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(send(&mut world, 1, 0), id(1));
    assert_eq!(send(&mut world, 2, 5), id(1), "the same request, with material of its own");
    // The object has changed: it is not a retry any more.
    assert!(matches!(world.by(alice(), secret("s", 3)), Outcome::Version(_)));
    assert_eq!(send(&mut world, 4, 5), id(4));
    assert_eq!(send(&mut world, 5, 5), id(4));
    assert_eq!(send(&mut world, 6, 61), id(6), "too late for a retry");
    let mut other = entry(90, alice(), world.now * 1_000, &Command::DeleteObject(object("s")), vec![vec![1]]);
    other.request_id = request;
    assert!(matches!(apply(&mut world.kv, 90, &other).unwrap(), Outcome::Deleted(..)), "another command");
}

#[test]
fn a_node_has_one_disk_at_a_time() {
    let mut world = World::new();
    let note = |node, disk| Command::NoteDisk(NoteDisk { node, disk });
    assert_eq!(read::disk(&world.kv, 1).unwrap(), None);
    assert_eq!(world.by(alice(), note(1, id(8))), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(read::disk(&world.kv, 1).unwrap(), None);
    assert_eq!(world.system(note(1, id(8))), Outcome::Done);
    assert_eq!(world.system(note(256, id(9))), Outcome::Done);
    assert_eq!(world.system(note(1, id(10))), Outcome::Done);
    assert_eq!([1, 2, 256].map(|node| read::disk(&world.kv, node).unwrap()), [Some(id(10)), None, Some(id(9))]);
}

#[test]
fn how_reads_are_made_is_the_operators_to_say() {
    let mut world = World::new();
    let set =
        |mode, lease_ms| Command::SetReads(SetReads { mode, timing: ReadTiming { lease_ms, ..ReadTiming::default() } });
    let of_vault = |mode| Command::SetVaultReads(SetVaultReads { vault: VAULT, mode });
    assert_eq!(read::reads(&world.kv).unwrap(), None);
    assert_eq!(world.system(of_vault(Some(ReadMode::ReadIndex))), Outcome::Refused(Refusal::BadReads));
    assert_eq!(world.by(alice(), set(ReadMode::Lease, 1_000)), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(world.system(set(ReadMode::Lease, 99)), Outcome::Refused(Refusal::BadReads));
    assert_eq!(world.system(set(ReadMode::Bounded { bound_ms: 1 }, 1_000)), Outcome::Refused(Refusal::BadReads));
    assert_eq!(world.system(set(ReadMode::Lease, 2_000)), Outcome::Done);
    assert_eq!(world.system(of_vault(Some(ReadMode::Bounded { bound_ms: 500 }))), Outcome::Refused(Refusal::BadReads));
    assert_eq!(world.system(of_vault(Some(ReadMode::ReadIndex))), Outcome::Done);
    assert_eq!(world.system(set(ReadMode::Lease, 500)), Outcome::Done);
    let reads = read::reads(&world.kv).unwrap().unwrap();
    assert_eq!((reads.of(VAULT), reads.of(id(77))), (ReadMode::ReadIndex, ReadMode::Lease));
    assert_eq!(reads.longest.unwrap().lease_ms, 2_000, "a new leader waits for the longest lease there was");
    assert_eq!(world.system(of_vault(None)), Outcome::Done);
    assert_eq!(read::reads(&world.kv).unwrap().unwrap().of(VAULT), ReadMode::Lease);
}

#[test]
fn tenants_have_domains_and_principals_of_their_own() {
    let mut w = World::new();
    let tenant = |n: u64, domain: &str| {
        let (domain, display_name) = (domain.to_owned(), "T".to_owned());
        Command::PutTenant(PutTenant { tenant: id(n), domain, display_name })
    };
    assert_eq!(w.system(tenant(50, "one.test")), Outcome::Done);
    assert_eq!(w.system(tenant(50, "one.test")), Outcome::Done, "the same again is no other one");
    assert_eq!(w.system(tenant(51, "One.test")), Outcome::Refused(Refusal::PrincipalExists));
    let known = read::tenants(&w.kv).unwrap().len() as u64;
    for n in known..100 {
        assert_eq!(w.system(tenant(100 + n, &format!("t{n}.test"))), Outcome::Done);
    }
    assert_eq!(w.system(tenant(300, "more.test")), Outcome::Refused(Refusal::TooMany));

    let missing = Outcome::Refused(Refusal::PrincipalNotFound);
    let group = |tenant| Command::PutGroup(PutGroup { tenant, oid: id(60), display_name: "G".into() });
    assert_eq!(w.system(group(TENANT)), Outcome::Done);
    assert_eq!(w.system(group(id(50))), missing);
    let user = |tenant| {
        let (upn, display_name) = ("u@a.test".into(), "U".into());
        Command::PutUser(PutUser { tenant, oid: id(61), upn, display_name })
    };
    assert_eq!(w.system(user(TENANT)), Outcome::Done);
    assert_eq!(w.system(user(id(50))), missing);
    assert_eq!(read::group(&w.kv, id(60)).unwrap().unwrap().tenant, TENANT);
    assert_eq!(read::user(&w.kv, id(61)).unwrap().unwrap().tenant, TENANT);
}

#[test]
fn users_have_names_of_their_own_and_leave_nothing_behind() {
    let mut w = World::new();
    let exists = Outcome::Refused(Refusal::PrincipalExists);
    let missing = Outcome::Refused(Refusal::PrincipalNotFound);
    let (carol, dave, group) = (id(1), id(2), id(3));
    assert_eq!(w.system(user(carol, "Carol@a.test", Some("$1"))), Outcome::Done);
    assert_eq!(w.system(user(dave, "CAROL@A.test", None)), exists);
    assert_eq!(w.system(user(carol, "other@a.test", None)), exists);
    let stamp = |w: &World| read::sign_in(&w.kv, carol).unwrap().unwrap().stamp;
    let first = stamp(&w);
    let update = |password: Option<&str>, enabled| {
        let password = password.map(str::to_owned);
        Command::UpdateUser(UpdateUser { tenant: TENANT, oid: carol, display_name: None, password, enabled })
    };
    assert_eq!(w.system(update(None, Some(false))), Outcome::Done);
    assert_eq!(stamp(&w), first);
    assert_eq!(w.system(update(Some("$2"), None)), Outcome::Done);
    assert!(stamp(&w) > first);
    let found = read::user_by_name(&w.kv, "carol@A.TEST").unwrap().unwrap();
    assert_eq!((found.oid, found.display_name.as_str()), (carol, "Carol@a.test"));
    assert!(!read::sign_in(&w.kv, carol).unwrap().unwrap().enabled);

    let member = |member| Command::SetMember(SetMember { tenant: TENANT, group, member, present: true });
    assert_eq!(w.system(member(carol)), missing);
    w.system(Command::PutGroup(PutGroup { tenant: TENANT, oid: group, display_name: "G".into() }));
    for who in [carol, dave] {
        assert_eq!(w.system(member(who)), Outcome::Done);
    }
    assert_eq!(w.by(bob(), user(id(9), "x@a.test", None)), Outcome::Refused(Refusal::Forbidden));
    let of = |oid| PrincipalRef { tenant: TENANT, oid };
    assert_eq!(w.system(Command::DeleteUser(of(carol))), Outcome::Done);
    assert_eq!(w.system(Command::DeleteUser(of(carol))), missing);
    assert_eq!(w.system(update(None, None)), missing);
    assert_eq!(read::principals(&w.kv, carol).unwrap(), [carol]);
    assert_eq!(read::principals(&w.kv, dave).unwrap(), [dave, group]);
    assert_eq!(w.system(Command::DeleteGroup(of(group))), Outcome::Done);
    assert_eq!(w.system(Command::DeleteGroup(of(group))), missing);
    assert_eq!(read::principals(&w.kv, dave).unwrap(), [dave]);
    assert_eq!(w.system(user(dave, "Carol@a.test", None)), Outcome::Done);
}

#[test]
fn federated_credentials_do_not_overlap_and_go_with_their_application() {
    let mut w = World::new();
    let app = id(1);
    assert_eq!(w.system(federated(app, 1, "one", "s1")), Outcome::Refused(Refusal::PrincipalNotFound));
    w.system(application(app));
    assert_eq!(w.system(federated(app, 1, "one", "s1")), Outcome::Done);
    assert_eq!(w.system(federated(app, 2, "ONE", "s2")), Outcome::Refused(Refusal::PrincipalExists));
    assert_eq!(w.system(federated(app, 2, "two", "s1")), Outcome::Refused(Refusal::PrincipalExists));
    // The same one again is a change.
    assert_eq!(w.system(federated(app, 1, "one", "s2")), Outcome::Done);
    for n in 2..=20 {
        assert_eq!(w.system(federated(app, n, &format!("n{n}"), &format!("t{n}"))), Outcome::Done);
    }
    assert_eq!(w.system(federated(app, 21, "more", "more")), Outcome::Refused(Refusal::TooMany));
    let delete = Command::DeleteFederatedCredential(DeleteFederatedCredential { tenant: TENANT, app, id: id(2) });
    assert_eq!(w.system(delete.clone()), Outcome::Done);
    assert_eq!(w.system(delete), Outcome::Refused(Refusal::PrincipalNotFound));
    assert_eq!(read::federated_credentials(&w.kv, app).unwrap().len(), 19);
    w.system(Command::DeleteApplication(DeleteApplication { tenant: TENANT, app }));
    assert_eq!(read::federated_credentials(&w.kv, app).unwrap(), []);
}

#[test]
fn an_approval_is_good_for_one_token_and_not_for_long() {
    let mut w = World::new();
    let (carol, dave) = (id(1), id(2));
    assert_eq!(w.system(approve(1, carol, w.now + 900)), Outcome::Refused(Refusal::PrincipalNotFound));
    w.system(user(carol, "c@a.test", None));
    w.system(user(dave, "d@a.test", None));
    assert_eq!(w.by(bob(), approve(1, carol, w.now + 900)), Outcome::Refused(Refusal::Forbidden));
    assert_eq!(w.system(approve(1, carol, w.now + 900)), Outcome::Done);
    assert_eq!(w.system(approve(1, dave, w.now + 900)), Outcome::Refused(Refusal::PrincipalExists));
    let take = |code| Command::TakeDevice(TakeDevice { code: [code; 32] });
    assert_eq!(w.system(take(1)), Outcome::Done);
    assert_eq!(w.system(take(1)), Outcome::Refused(Refusal::NotApproved));
    for code in 2..9 {
        assert_eq!(w.system(approve(code, carol, w.now + 900)), Outcome::Done);
    }
    w.now += 900;
    assert_eq!(w.system(take(2)), Outcome::Refused(Refusal::NotApproved));
    assert_eq!(w.system(approve(2, dave, w.now + 900)), Outcome::Done);
    assert_eq!(w.system(approve(9, carol, w.now + 900)), Outcome::Done);
    let left: Vec<u8> = (1..=9).filter(|code| read::device(&w.kv, &[*code; 32]).unwrap().is_some()).collect();
    assert_eq!(left, [2, 9]);
}

#[test]
fn a_policy_may_name_user_and_application_together() {
    let mut w = World::new();
    let through = id(50);
    let own = AccessPolicy::everything(TENANT, ALICE);
    let compound = AccessPolicy { application: Some(through), ..AccessPolicy::everything(TENANT, BOB) };
    let set = SetPolicies { vault: VAULT, seen: None, policies: vec![own, compound] };
    w.system(Command::SetPolicies(set));
    let delegated = |oid, app| Actor::Delegated { tenant: TENANT, oid, app };
    assert!(matches!(w.by(delegated(BOB, through), secret("a", 1)), Outcome::Version(_)));
    assert!(matches!(w.by(delegated(ALICE, id(51)), secret("a", 2)), Outcome::Version(_)));
    for stranger in [bob(), delegated(BOB, id(51)), delegated(through, through)] {
        assert_eq!(w.by(stranger, secret("a", 3)), Outcome::Refused(Refusal::Forbidden));
    }
}

#[test]
fn groups_of_another_issuer_count_for_its_principals() {
    let mut w = World::new();
    let external = |groups: &[Id128]| Actor::External { tenant: TENANT, oid: BOB, groups: groups.to_vec() };
    assert_eq!(w.by(external(&[id(1)]), secret("a", 1)), Outcome::Refused(Refusal::Forbidden));
    assert!(matches!(w.by(external(&[id(1), ALICE]), secret("a", 2)), Outcome::Version(_)));
    w.assign(1, "Owner", SUB, id(7));
    assert_eq!(w.by(external(&[id(7)]), group("x")), Outcome::Done);
    assert_eq!(w.by(external(&[]), group("y")), Outcome::Refused(Refusal::Forbidden));
}
