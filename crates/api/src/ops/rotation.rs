//! Rotation and rotation policies (contract section 10.4).

use super::keys::{check_hsm, put, NewKey};
use crate::call::{unexpected, Call, Reply};
use crate::error::ServiceError;
use crate::object;
use claviger_state_machine::read;
use claviger_state_machine::rotation::NOTIFY_DEFAULT;
use claviger_types::command::{Command, Content, ObjectRef, RotateTrigger, RotationPolicy, SetRotationPolicy};
use claviger_types::duration::IsoDuration;
use claviger_types::name::Kind;
use claviger_types::outcome::{ObjectVersion, Outcome};
use serde::{Deserialize, Serialize};

/// Shortest life of a rotated version, in days.
const EXPIRY_DAYS_MIN: u32 = 28;

/// Rotation happens at least so many days after creation and before expiry.
const ROTATE_DAYS_MIN: u32 = 7;

#[derive(Debug, Deserialize, Serialize, Default)]
struct PolicyJson {
    #[serde(skip_deserializing)]
    id: String,
    #[serde(rename = "lifetimeActions", default, deserialize_with = "object::list")]
    lifetime_actions: Option<Vec<ActionJson>>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<PolicyAttributes>,
}

#[derive(Debug, Deserialize, Serialize, Default)]
struct PolicyAttributes {
    #[serde(rename = "expiryTime", skip_serializing_if = "Option::is_none")]
    expiry_time: Option<String>,
    #[serde(skip_deserializing)]
    created: u64,
    #[serde(skip_deserializing)]
    updated: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct ActionJson {
    #[serde(default, deserialize_with = "object::optional")]
    trigger: Option<TriggerJson>,
    #[serde(default, deserialize_with = "object::optional")]
    action: Option<ActionType>,
}

#[derive(Debug, Deserialize, Serialize)]
struct TriggerJson {
    #[serde(rename = "timeAfterCreate", skip_serializing_if = "Option::is_none")]
    time_after_create: Option<String>,
    #[serde(rename = "timeBeforeExpiry", skip_serializing_if = "Option::is_none")]
    time_before_expiry: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ActionType {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn bad<T>(text: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError::BadParameter(text.into()))
}

fn duration(text: &str, what: &str) -> Result<IsoDuration, ServiceError> {
    IsoDuration::parse(text).ok_or_else(|| {
        ServiceError::BadParameter(format!(
            "'{what}' must be an ISO 8601 duration of days, months or years, not '{text}'."
        ))
    })
}

/// Checks a policy and puts it into its stored form; `None` is the default policy.
fn parse(json: PolicyJson) -> Result<Option<RotationPolicy>, ServiceError> {
    let expiry_time = json.attributes.and_then(|a| a.expiry_time).filter(|text| !text.is_empty());
    let expiry = expiry_time.as_deref().map(|text| duration(text, "expiryTime")).transpose()?;
    if expiry.is_some_and(|expiry| expiry.days_min() < EXPIRY_DAYS_MIN) {
        return bad(format!("'expiryTime' must be at least {EXPIRY_DAYS_MIN} days."));
    }
    let actions = json.lifetime_actions.unwrap_or_default();
    if actions.is_empty() && expiry_time.is_none() {
        return Ok(None);
    }
    let (mut rotate, mut notify) = (None, None);
    for action in actions {
        let kind = action.action.and_then(|a| a.kind).unwrap_or_default();
        let Some(trigger) = action.trigger else { return bad("A lifetime action needs a trigger.") };
        let (after, before) = (trigger.time_after_create, trigger.time_before_expiry);
        if kind.eq_ignore_ascii_case("rotate") {
            if rotate.replace(rotate_trigger(after, before, expiry)?).is_some() {
                return bad("There may be one lifetime action of type 'Rotate' only.");
            }
        } else if kind.eq_ignore_ascii_case("notify") {
            let (None, Some(before)) = (after, before) else {
                return bad("A lifetime action of type 'Notify' has the trigger 'timeBeforeExpiry' and no other.");
            };
            duration(&before, "timeBeforeExpiry")?;
            if notify.replace(before).is_some() {
                return bad("There may be one lifetime action of type 'Notify' only.");
            }
        } else {
            return bad(format!("The lifetime action type '{kind}' is not known: it is 'Rotate' or 'Notify'."));
        }
    }
    let notify_before_expiry = notify.unwrap_or_else(|| NOTIFY_DEFAULT.to_owned());
    Ok(Some(RotationPolicy { expiry_time, rotate, notify_before_expiry, created: 0, updated: 0 }))
}

/// Whether a part of a key's life leaves enough of the rest, from whatever day on it is counted.
fn leaves_a_week(life: IsoDuration, part: IsoDuration) -> bool {
    life.always_exceeds(part, ROTATE_DAYS_MIN)
}

fn rotate_trigger(
    after: Option<String>,
    before: Option<String>,
    expiry: Option<IsoDuration>,
) -> Result<RotateTrigger, ServiceError> {
    match (after, before) {
        (Some(after), None) => {
            let given = duration(&after, "timeAfterCreate")?;
            if given.days_min() < ROTATE_DAYS_MIN {
                return bad(format!("'timeAfterCreate' must be at least {ROTATE_DAYS_MIN} days."));
            }
            if expiry.is_some_and(|expiry| !leaves_a_week(expiry, given)) {
                return bad(format!("A key must be rotated at least {ROTATE_DAYS_MIN} days before it expires."));
            }
            Ok(RotateTrigger::AfterCreate(after))
        }
        (None, Some(before)) => {
            let given = duration(&before, "timeBeforeExpiry")?;
            let Some(expiry) = expiry else {
                return bad("The trigger 'timeBeforeExpiry' of 'Rotate' needs an 'expiryTime'.");
            };
            if given.days_min() < ROTATE_DAYS_MIN || !leaves_a_week(expiry, given) {
                return bad(format!(
                    "A key must be rotated at least {ROTATE_DAYS_MIN} days after it is created and before it expires."
                ));
            }
            Ok(RotateTrigger::BeforeExpiry(before))
        }
        _ => bad("A lifetime action of type 'Rotate' has exactly one trigger."),
    }
}

fn action(kind: &str, after: Option<String>, before: Option<String>) -> ActionJson {
    ActionJson {
        trigger: Some(TriggerJson { time_after_create: after, time_before_expiry: before }),
        action: Some(ActionType { kind: Some(kind.to_owned()) }),
    }
}

/// The wire's form: `Rotate` before `Notify`, durations as given.
fn render(call: &Call<'_>, policy: Option<RotationPolicy>, key: &ObjectVersion) -> Result<Reply, ServiceError> {
    let policy = policy.unwrap_or(RotationPolicy {
        expiry_time: None,
        rotate: None,
        notify_before_expiry: NOTIFY_DEFAULT.to_owned(),
        created: key.created,
        updated: key.created,
    });
    let mut actions = Vec::new();
    match policy.rotate {
        Some(RotateTrigger::AfterCreate(text)) => actions.push(action("Rotate", Some(text), None)),
        Some(RotateTrigger::BeforeExpiry(text)) => actions.push(action("Rotate", None, Some(text))),
        None => {}
    }
    actions.push(action("Notify", None, Some(policy.notify_before_expiry)));
    let attributes =
        PolicyAttributes { expiry_time: policy.expiry_time, created: policy.created, updated: policy.updated };
    Reply::ok(&PolicyJson {
        id: format!("{}/rotationpolicy", call.render.object_id(Kind::Key, key.name.as_str())),
        lifetime_actions: Some(actions),
        attributes: Some(attributes),
    })
}

pub(crate) fn get_policy(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (vault, folded) = (call.vault().id, call.name()?.folded());
    let (head, newest) = call.view(|view| {
        let head = read::head(view, vault, Kind::Key, &folded)?;
        let newest = read::live(view, vault, Kind::Key, &folded, None)?;
        Ok((head, newest))
    })?;
    match (head, newest) {
        (Some(head), Some(newest)) => render(call, head.rotation, &newest),
        _ => Err(call.not_found()),
    }
}

pub(crate) async fn set_policy(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let policy = parse(call.json()?)?;
    // The default policy is as old as the newest version, also right after it has come back.
    let newest = call.live()?;
    let object = ObjectRef { vault: call.vault().id, kind: Kind::Key, name: call.name()?.clone() };
    match call.propose(Command::SetRotationPolicy(SetRotationPolicy { object, policy }), Vec::new()).await? {
        Outcome::Rotation(policy) => render(call, policy, &newest),
        other => Err(unexpected(&other)),
    }
}

/// A new version of the same kind, with the same operations, tags and release policy (contract 10.4).
pub(crate) async fn rotate(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (vault, name) = (call.vault().id, call.name()?.clone());
    let folded = name.folded();
    let (head, newest) = call.view(|view| {
        let head = read::head(view, vault, Kind::Key, &folded)?;
        Ok((head, read::live(view, vault, Kind::Key, &folded, None)?))
    })?;
    let (Some(head), Some(newest)) = (head, newest) else { return Err(call.not_found()) };
    let Content::Key { kty, public, .. } = &newest.content else { return Err(ServiceError::Internal) };
    check_hsm(call, *kty)?;
    let made = call.service.keygen.generate(public.spec()).await?;
    let new = NewKey::successor(made, newest, head.rotation.as_ref(), call.now).ok_or(ServiceError::Internal)?;
    put(call, name, new).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<RotationPolicy>, ServiceError> {
        parse(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn policies() {
        let full = of(r#"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P18M"},"action":{"type":"rotate"}}],
            "attributes":{"expiryTime":"P2Y"}}"#);
        let full = full.unwrap().unwrap();
        assert_eq!(full.rotate, Some(RotateTrigger::AfterCreate("P18M".into())));
        assert_eq!(full.notify_before_expiry, "P30D");
        assert_eq!(of(r#"{"lifetimeActions":[]}"#), Ok(None));
        for bad in [
            r#"{"attributes":{"expiryTime":"P27D"}}"#,
            r#"{"attributes":{"expiryTime":"soon"}}"#,
            r#"{"lifetimeActions":[{"trigger":{"timeBeforeExpiry":"P30D"},"action":{"type":"Rotate"}}]}"#,
            r#"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P6D"},"action":{"type":"Rotate"}}]}"#,
            r#"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P30D"},"action":{"type":"Notify"}}]}"#,
            r#"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P30D"},"action":{"type":"Explode"}}]}"#,
            r#"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P89D"},"action":{"type":"Rotate"}}],
                "attributes":{"expiryTime":"P90D"}}"#,
        ] {
            assert!(matches!(of(bad), Err(ServiceError::BadParameter(_))), "{bad}");
        }
    }
}
