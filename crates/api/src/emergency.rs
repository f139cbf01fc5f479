//! Emergencies (design B7): reads at one node from a state that may be old, while a majority cannot be reached.
//!
//! Two people are needed: an operator at the node, and an approver, who signs a statement of what is allowed where and until
//! when. The service knows the approvers' certificates from its configuration; without any, there are no emergencies. What was
//! allowed is logged at once and goes into the audit chain as soon as there is a majority again.

use crate::identity::certificate_key;
use crate::service::{fresh_id, Service};
use base64::Engine;
use claviger_node::Emergency;
use claviger_types::alg::PublicKey;
use claviger_types::alg::SignAlg;
use claviger_types::command::{Actor, Command, Entry, NoteEmergency};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How far behind answers may be allowed to be, in milliseconds: a second to a week.
const BOUND_MS: RangeInclusive<u64> = 1_000..=604_800_000;

/// How long an emergency may last, in minutes: a day. Who needs longer asks again.
const MINUTES: RangeInclusive<u64> = 1..=1_440;

/// How often it is tried to write the emergency into the log.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// Tries after which the log of the process has to do: a week.
const NOTE_TRIES: u32 = 120_960;

/// Somebody whose signature allows an emergency.
#[derive(Debug, Clone)]
pub struct Approver {
    name: String,
    key: PublicKey,
}

impl Approver {
    /// From a PEM certificate with an RSA key of 2,048 to 4,096 bits; `name` is for the audit.
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| "not a PEM certificate".to_owned())?;
        let (key, ..) =
            certificate_key(&pem.contents).ok_or("not a certificate with an RSA key of 2048 to 4096 bits")?;
        Ok(Self { name: name.to_owned(), key })
    }
}

/// What is to be signed, word for word: `until` in seconds since 1970.
fn statement(world: &str, node: u64, bound_ms: u64, until: u64) -> String {
    let mut text = String::from("claviger emergency reads\n");
    write!(text, "world {world}\nnode {node}\nbound_ms {bound_ms}\nuntil {until}\n").ok();
    text
}

impl Service {
    fn statement(&self, bound_ms: u64, until: u64) -> String {
        statement(&self.sealer.world().guid(), self.node.id(), bound_ms, until)
    }

    /// The statement for this node that an approver has to sign.
    pub(crate) fn emergency_statement(&self, bound_ms: u64, minutes: u64) -> Result<String, String> {
        self.check_approvers()?;
        if !BOUND_MS.contains(&bound_ms) {
            return Err("the bound is 1000 to 604800000 ms".into());
        }
        if !MINUTES.contains(&minutes) {
            return Err("an emergency lasts 1 to 1440 minutes".into());
        }
        Ok(self.statement(bound_ms, self.now_ms() / 1_000 + minutes * 60))
    }

    fn check_approvers(&self) -> Result<(), String> {
        match self.config.approvers.is_empty() {
            true => Err("no approvers are configured (emergency.approvers): there are no emergencies here".into()),
            false => Ok(()),
        }
    }

    /// Begins an emergency, if the statement is about this node and an approver signed it (RS256: RSA, PKCS #1 v1.5, SHA-256;
    /// base64). Answers until when it lasts, in seconds since 1970.
    pub(crate) fn begin_emergency(self: &Arc<Self>, statement: &str, signature: &str) -> Result<u64, String> {
        self.check_approvers()?;
        let number = |name: &str| {
            let line = statement.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|text| text.parse::<u64>().ok())
        };
        let (bound_ms, until) = number("bound_ms").zip(number("until")).ok_or("this is not a statement")?;
        if statement != self.statement(bound_ms, until) || !BOUND_MS.contains(&bound_ms) {
            return Err("the statement is not about this node, or was changed".into());
        }
        let left = until.saturating_sub(self.now_ms() / 1_000);
        if left == 0 || left > MINUTES.end() * 60 {
            return Err("the statement's time is over, or too far away".into());
        }
        let signature = base64::engine::general_purpose::STANDARD.decode(signature.trim());
        let signature = signature.map_err(|_| "the signature is not base64".to_owned())?;
        let digest = Sha256::digest(statement.as_bytes());
        let signed = |approver: &&Approver| {
            matches!(self.provider.verify(&approver.key, SignAlg::Rs256, &digest, &signature), Ok(true))
        };
        let approver = self.config.approvers.iter().find(signed).ok_or("no approver signed this statement")?;
        tracing::error!(approver = approver.name, statement, "EMERGENCY begins");
        let emergency = Emergency { bound: Duration::from_millis(bound_ms), lasts: Duration::from_secs(left) };
        self.node.set_emergency(Some(emergency));
        let note =
            NoteEmergency { node: self.node.id(), statement: statement.to_owned(), approver: approver.name.clone() };
        tokio::spawn(write_down(self.clone(), Command::NoteEmergency(note)));
        Ok(until)
    }
}

/// Puts the emergency into the audit chain once there is a majority.
async fn write_down(service: Arc<Service>, note: Command) {
    let Ok(request) = fresh_id() else { return };
    for _ in 0..NOTE_TRIES {
        let entry = Entry::new(request, Actor::System, service.now_ms(), &note, Vec::new());
        match entry {
            Ok(entry) if service.node.propose(&entry).await.is_ok() => return,
            Ok(_) => tokio::time::sleep(NOTE_EVERY).await,
            Err(error) => {
                tracing::error!(%error, "an emergency could not be written down");
                return;
            }
        }
    }
    tracing::error!("an emergency could not be written into the audit chain");
}
