//! `Microsoft.Authorization`: role assignments and definitions below any scope.

use super::properties::{inner, member};
use super::{Answer, Arm, ArmError, Result};
use crate::filter::Condition;
use claviger_state_machine::read;
use claviger_state_machine::records::RoleAssignment;
use claviger_types::command::{
    Command, DeleteRoleAssignment, DeleteRoleDefinition, PrincipalKind, PutRoleAssignment, PutRoleDefinition,
};
use claviger_types::duration::rfc3339;
use claviger_types::name::Id128;
use claviger_types::outcome::Refusal;
use claviger_types::role::{RoleDefinition, Scope};
use serde_json::{json, Value};

/// Most actions of one custom role, of each sort.
const ACTIONS_MAX: usize = 2048;

pub(crate) fn kind_name(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::ServicePrincipal => "ServicePrincipal",
        PrincipalKind::User => "User",
        PrincipalKind::Group => "Group",
    }
}

fn kind_of(name: &str) -> Option<PrincipalKind> {
    let all = [PrincipalKind::ServicePrincipal, PrincipalKind::User, PrincipalKind::Group];
    all.into_iter().find(|kind| kind_name(*kind).eq_ignore_ascii_case(name))
}

fn definition_id(subscription: Option<Id128>, id: Id128) -> String {
    let below = format!("/providers/Microsoft.Authorization/roleDefinitions/{}", id.guid());
    match subscription {
        Some(subscription) => format!("/subscriptions/{}{below}", subscription.guid()),
        None => below,
    }
}

fn render_assignment(found: &RoleAssignment) -> Value {
    let created = rfc3339(found.created);
    let by = found.created_by.map_or_else(String::new, |by| by.guid());
    json!({
        "id": format!("{}/providers/Microsoft.Authorization/roleAssignments/{}", found.scope, found.id.guid()),
        "name": found.id.guid(),
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": {
            "roleDefinitionId": definition_id(found.scope.subscription_id(), found.role),
            "principalId": found.principal.guid(),
            "principalType": kind_name(found.principal_kind),
            "scope": found.scope.as_str(),
            "condition": null,
            "conditionVersion": null,
            "createdOn": created,
            "updatedOn": created,
            "createdBy": by,
            "updatedBy": by,
            "delegatedManagedIdentityResourceId": null,
            "description": found.description,
        },
    })
}

fn role_type(role: &RoleDefinition) -> &'static str {
    if role.is_built_in() {
        "BuiltInRole"
    } else {
        "CustomRole"
    }
}

fn render_definition(subscription: Option<Id128>, role: &RoleDefinition) -> Value {
    json!({
        "id": definition_id(subscription, role.id),
        "name": role.id.guid(),
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": role.name,
            "type": role_type(role),
            "description": role.description,
            "assignableScopes": role.assignable_scopes,
            "permissions": [{
                "actions": role.actions,
                "notActions": role.not_actions,
                "dataActions": role.data_actions,
                "notDataActions": role.not_data_actions,
            }],
        },
    })
}

/// The role that an id names, whatever scope the id was written with.
fn role_of(id: &str) -> Result<Id128> {
    Id128::parse_guid(id.rsplit('/').next().unwrap_or_default()).map_err(|_| {
        ArmError::new(400, "InvalidRoleDefinitionId", format!("The role definition ID '{id}' is not valid."))
    })
}

fn id_of(name: &str, what: &'static str) -> Result<Id128> {
    Id128::parse_guid(name)
        .map_err(|_| ArmError::new(400, what, format!("The ID '{name}' is not valid. It must be a GUID.")))
}

/// A list of texts, empty if it is absent.
fn texts(value: &Value, name: &str) -> Result<Vec<String>> {
    let Some(items) = member(value, name) else { return Ok(Vec::new()) };
    let items = items.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    items.filter(|items: &Vec<String>| items.len() <= ACTIONS_MAX).ok_or_else(ArmError::body)
}

fn no_conditions() -> ArmError {
    let text = "Conditions of roles and of their assignments are not there in this release of Claviger.";
    ArmError::new(400, "ConditionNotSupported", text)
}

/// What a custom role allows, out of the one or more `permissions` that say it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Permissions {
    actions: Vec<String>,
    not_actions: Vec<String>,
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
}

/// Actions, and those that are taken out of them again.
type Half = (Vec<String>, Vec<String>);

/// What several give together. What one takes out is not taken out of the others: that is one again only where all that
/// give anything take out the same.
fn merged(mut all: Vec<Half>) -> Option<Half> {
    if all.len() > 1 {
        all.retain(|(actions, _)| !actions.is_empty());
    }
    let mut all = all.into_iter();
    let (mut actions, not_actions) = all.next().unwrap_or_default();
    for (more, not) in all {
        if not != not_actions {
            return None;
        }
        actions.extend(more);
    }
    Some((actions, not_actions))
}

impl Permissions {
    fn of(list: &Value) -> Result<Self> {
        let entries = match list {
            Value::Null => &[],
            list => list.as_array().ok_or_else(ArmError::body)?.as_slice(),
        };
        let all = entries.iter().map(Self::of_entry).collect::<Result<Vec<_>>>()?;
        let (plain, on_data): (Vec<Half>, Vec<Half>) = all
            .into_iter()
            .map(|one| ((one.actions, one.not_actions), (one.data_actions, one.not_data_actions)))
            .unzip();
        let (Some((actions, not_actions)), Some((data_actions, not_data_actions))) = (merged(plain), merged(on_data))
        else {
            let text = "Several 'permissions' of a role must have the same 'notActions' and 'notDataActions' in this \
                        release of Claviger: use one permission, or several roles.";
            return Err(ArmError::new(400, "InvalidRoleDefinition", text));
        };
        if actions.len() > ACTIONS_MAX || data_actions.len() > ACTIONS_MAX {
            return Err(ArmError::body());
        }
        Ok(Self { actions, not_actions, data_actions, not_data_actions })
    }

    fn of_entry(entry: &Value) -> Result<Self> {
        if !entry.is_object() {
            return Err(ArmError::body());
        }
        if member(entry, "condition").is_some() {
            return Err(no_conditions());
        }
        let actions = |name: &str, code: &'static str| -> Result<Vec<String>> {
            let found = texts(entry, name)?;
            match found.iter().find(|action| !action.contains(['/', '*'])) {
                None => Ok(found),
                Some(bad) => {
                    let text = format!("'{bad}' does not match any of the actions supported by the providers.");
                    Err(ArmError::new(400, code, text))
                }
            }
        };
        let (plain, on_data) = ("InvalidActionOrNotAction", "InvalidDataActionOrNotDataAction");
        Ok(Self {
            actions: actions("actions", plain)?,
            not_actions: actions("notActions", plain)?,
            data_actions: actions("dataActions", on_data)?,
            not_data_actions: actions("notDataActions", on_data)?,
        })
    }
}

impl Arm<'_> {
    /// A request below `{scope}/providers/Microsoft.Authorization`.
    pub(super) async fn authorization(&self, method: &str, scope: &[&str], rest: &[&str]) -> Result<Answer> {
        let path = format!("/{}", scope.join("/"));
        if scope.is_empty() {
            // Ids without a subscription: definitions are the same everywhere.
            return match (method, rest) {
                ("GET", ["roledefinitions"]) => self.definitions(None),
                ("GET", ["roledefinitions", id]) => self.definition(None, id),
                _ => Err(self.no_route(method)),
            };
        }
        let scope = Scope::parse(&path).map_err(|_| {
            ArmError::new(400, "InvalidScope", format!("The scope '{path}' is none that roles can be assigned in."))
        })?;
        let subscription = scope.subscription_id().map(|id| id.guid()).unwrap_or_default();
        self.subscription(&subscription)?;
        match (method, rest) {
            ("GET", ["roledefinitions"]) => self.definitions(Some(&scope)),
            ("GET", ["roledefinitions", id]) => self.definition(Some(&scope), id),
            ("PUT", ["roledefinitions", id]) => self.put_definition(scope, id).await,
            ("DELETE", ["roledefinitions", id]) => self.delete_definition(scope, id).await,
            ("GET", ["roleassignments"]) => self.assignments(&scope),
            ("GET", ["roleassignments", id]) => {
                self.require(&scope, "Microsoft.Authorization/roleAssignments/read")?;
                let found = self.assignment(&scope, id)?;
                found.map(|found| Answer::ok(render_assignment(&found))).ok_or_else(|| {
                    ArmError::new(404, "RoleAssignmentNotFound", format!("The role assignment '{id}' is not found."))
                })
            }
            ("PUT", ["roleassignments", id]) => self.put_assignment(scope, id).await,
            ("DELETE", ["roleassignments", id]) => self.delete_assignment(&scope, id).await,
            ("GET", ["permissions"]) => self.permissions(&scope),
            // There are none of these, and clients look.
            (
                "GET",
                ["denyassignments"
                | "classicadministrators"
                | "locks"
                | "policyassignments"
                | "roleassignmentschedules"
                | "roleeligibilityschedules"
                | "roleeligibilityscheduleinstances"
                | "roleassignmentscheduleinstances"],
            ) => Ok(Answer::list(Vec::new())),
            _ => Err(self.no_route(method)),
        }
    }

    fn definitions(&self, scope: Option<&Scope>) -> Result<Answer> {
        let conditions = self.filter(|condition| match condition {
            Condition::Equal { property, .. } => matches!(property.as_str(), "rolename" | "type"),
            Condition::Call { function, .. } => matches!(function.as_str(), "atscope" | "atscopeandbelow"),
            _ => false,
        })?;
        let at_scope = conditions.iter().any(|condition| condition.name() == "atscope");
        let subscription = scope.and_then(Scope::subscription_id);
        let here = |role: &RoleDefinition| {
            role.is_built_in()
                || scope.is_some_and(|scope| {
                    role.assignable_scopes
                        .iter()
                        .any(|s| Scope::parse(s).is_ok_and(|s| s.holds(scope) || (!at_scope && scope.holds(&s))))
                })
        };
        let fits = |role: &RoleDefinition| {
            conditions.iter().all(|condition| match condition {
                Condition::Equal { property, value } if property == "rolename" => role.name.eq_ignore_ascii_case(value),
                Condition::Equal { value, .. } => value.eq_ignore_ascii_case(role_type(role)),
                _ => true,
            })
        };
        let roles = self.view(|view| read::roles(view))?;
        let found = roles.iter().filter(|role| here(role) && fits(role));
        Ok(Answer::list(found.map(|role| render_definition(subscription, role)).collect()))
    }

    fn definition(&self, scope: Option<&Scope>, id: &str) -> Result<Answer> {
        let found = self.view(|view| read::role(view, Id128::parse_guid(id).unwrap_or(Id128([0; 16]))))?;
        let subscription = scope.and_then(Scope::subscription_id);
        found.map(|role| Answer::ok(render_definition(subscription, &role))).ok_or_else(|| {
            let text = format!("The specified role definition with ID '{id}' does not exist.");
            ArmError::new(404, "RoleDefinitionDoesNotExist", text)
        })
    }

    async fn put_definition(&self, scope: Scope, id: &str) -> Result<Answer> {
        let action = "Microsoft.Authorization/roleDefinitions/write";
        self.require(&scope, action)?;
        let id = id_of(id, "InvalidRoleDefinitionId")?;
        let body = self.json()?;
        let properties = inner(&body)?;
        let text = |name: &str| member(properties, name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Permissions { actions, not_actions, data_actions, not_data_actions } =
            Permissions::of(member(properties, "permissions").unwrap_or(&Value::Null))?;
        let role = RoleDefinition {
            id,
            name: text("roleName"),
            description: text("description"),
            actions,
            not_actions,
            data_actions,
            not_data_actions,
            assignable_scopes: texts(properties, "assignableScopes")?,
        };
        if role.name.is_empty() || role.assignable_scopes.is_empty() {
            return Err(ArmError::new(
                400,
                "InvalidRoleDefinition",
                "A role needs a 'roleName' and at least one of 'assignableScopes'.",
            ));
        }
        if let Some(bad) = role.assignable_scopes.iter().find(|scope| Scope::parse(scope).is_err()) {
            let text = format!("The assignable scope '{bad}' is not valid.");
            return Err(ArmError::new(400, "InvalidAssignableScope", text));
        }
        let shown = render_definition(scope.subscription_id(), &role);
        let put = PutRoleDefinition { scope: scope.clone(), role };
        match self.propose_raw(&Command::PutRoleDefinition(put), Vec::new()).await? {
            None => Ok(Answer::with(201, shown)),
            Some(Refusal::Forbidden) => Err(self.forbidden(&scope, action)),
            Some(refusal) => Err(ArmError::of(refusal)),
        }
    }

    async fn delete_definition(&self, scope: Scope, id: &str) -> Result<Answer> {
        self.require(&scope, "Microsoft.Authorization/roleDefinitions/delete")?;
        let id = id_of(id, "InvalidRoleDefinitionId")?;
        let Some(role) = self.view(|view| read::role(view, id))? else { return Ok(Answer::empty(204)) };
        let shown = render_definition(scope.subscription_id(), &role);
        self.propose(&Command::DeleteRoleDefinition(DeleteRoleDefinition { scope, id }), Vec::new()).await?;
        Ok(Answer::ok(shown))
    }

    /// Assignments that hold here and above, and those below unless `atScope()` says otherwise.
    fn assignments(&self, scope: &Scope) -> Result<Answer> {
        self.require(scope, "Microsoft.Authorization/roleAssignments/read")?;
        let conditions = self.filter(|condition| match condition {
            Condition::Equal { property, .. } => property == "principalid",
            Condition::Call { function, .. } => matches!(function.as_str(), "atscope" | "assignedto"),
            _ => false,
        })?;
        let guid = |text: &str| Id128::parse_guid(text).unwrap_or(Id128([0; 16]));
        let mut principals: Option<Vec<Id128>> = None;
        let mut at_scope = false;
        for condition in &conditions {
            let named = match condition {
                Condition::Equal { value, .. } => vec![guid(value)],
                Condition::Call { function, argument } if function == "assignedto" => {
                    self.view(|view| read::principals(view, guid(argument)))?
                }
                _ => {
                    at_scope = true;
                    continue;
                }
            };
            principals = Some(match principals {
                Some(known) => known.into_iter().filter(|principal| named.contains(principal)).collect(),
                None => named,
            });
        }
        let all = self.view(|view| match &principals {
            // They are kept by principal: where those are named, only theirs are looked at.
            Some(principals) => {
                let mut found = Vec::new();
                for principal in principals {
                    found.extend(read::assignments_of(view, *principal)?);
                }
                Ok(found)
            }
            None => read::assignments(view),
        })?;
        let fits = |found: &&RoleAssignment| found.scope.holds(scope) || (!at_scope && scope.holds(&found.scope));
        self.page(all.iter().filter(fits).map(render_assignment).collect())
    }

    fn assignment(&self, scope: &Scope, id: &str) -> Result<Option<RoleAssignment>> {
        let Ok(id) = Id128::parse_guid(id) else { return Ok(None) };
        let found = self.view(|view| read::assignment(view, id))?;
        Ok(found.filter(|found| found.scope.folded() == scope.folded()))
    }

    async fn put_assignment(&self, scope: Scope, name: &str) -> Result<Answer> {
        let action = "Microsoft.Authorization/roleAssignments/write";
        self.require(&scope, action)?;
        let id = id_of(name, "InvalidRoleAssignmentId")?;
        let body = self.json()?;
        // Old clients send the members without `properties`' inner form; both name the same things.
        let properties = member(&body, "properties").unwrap_or(&body);
        let text = |name: &str| member(properties, name).and_then(Value::as_str);
        self.require_place(&scope)?;
        let role = role_of(text("roleDefinitionId").unwrap_or_default())?;
        let principal = text("principalId").unwrap_or_default();
        let missing = || {
            let text = format!(
                "Principal {principal} does not exist in the directory {}. Check that you have the correct principal ID.",
                self.principal.tenant.guid()
            );
            ArmError::new(400, "PrincipalNotFound", text)
        };
        let oid = Id128::parse_guid(principal).map_err(|_| missing())?;
        let kind = match self.principal_kind(oid)? {
            Some(kind) => kind,
            // A principal of another issuer is in no directory: the caller says what it is.
            None if self.service.issuers.have_principals() => {
                text("principalType").and_then(kind_of).ok_or_else(missing)?
            }
            None => return Err(missing()),
        };
        if let Some(asked) = text("principalType").filter(|asked| !asked.eq_ignore_ascii_case(kind_name(kind))) {
            let text = format!(
                "The PrincipalId '{principal}' has type '{}', which is different from specified \
                                PrincipalType '{asked}'.",
                kind_name(kind)
            );
            return Err(ArmError::new(400, "UnmatchedPrincipalType", text));
        }
        if member(properties, "condition").is_some() {
            return Err(no_conditions());
        }
        let description = text("description").map(str::to_owned);
        let put =
            PutRoleAssignment { id, scope: scope.clone(), role, principal: oid, principal_kind: kind, description };
        match self.propose_raw(&Command::PutRoleAssignment(put), Vec::new()).await? {
            None => {}
            Some(Refusal::Forbidden) => return Err(self.forbidden(&scope, action)),
            Some(refusal) => return Err(ArmError::of(refusal)),
        }
        let made = self.assignment(&scope, name)?.ok_or_else(|| ArmError::of(Refusal::AssignmentNotFound))?;
        Ok(Answer::with(201, render_assignment(&made)))
    }

    /// Refuses a scope whose group or vault is not there; an object of a vault may be yet to come.
    fn require_place(&self, scope: &Scope) -> Result<()> {
        let segments: Vec<&str> = scope.as_str().split('/').skip(1).collect();
        let (Some(id), Some(group)) = (segments.get(1), segments.get(3)) else { return Ok(()) };
        let subscription = self.subscription(id)?;
        match segments.get(7) {
            Some(vault) => self.vault_of(&subscription, group, vault).map(drop),
            None => self.group(&subscription, group)?.map(drop).ok_or_else(|| ArmError::group_not_found(group)),
        }
    }

    async fn delete_assignment(&self, scope: &Scope, id: &str) -> Result<Answer> {
        let action = "Microsoft.Authorization/roleAssignments/delete";
        self.require(scope, action)?;
        let Some(found) = self.assignment(scope, id)? else { return Ok(Answer::empty(204)) };
        let delete = DeleteRoleAssignment { id: found.id, scope: found.scope.clone(), principal: found.principal };
        match self.propose_raw(&Command::DeleteRoleAssignment(delete), Vec::new()).await? {
            None => Ok(Answer::ok(render_assignment(&found))),
            Some(Refusal::AssignmentNotFound) => Ok(Answer::empty(204)),
            Some(Refusal::Forbidden) => Err(self.forbidden(scope, action)),
            Some(refusal) => Err(ArmError::of(refusal)),
        }
    }

    /// What the caller may do here.
    fn permissions(&self, scope: &Scope) -> Result<Answer> {
        let found = self.view(|view| {
            let mut roles = Vec::new();
            for principal in self.principal.subject().principals(view)? {
                for assignment in read::assignments_of(view, principal)? {
                    if assignment.scope.holds(scope) {
                        roles.extend(read::role(view, assignment.role)?);
                    }
                }
            }
            Ok(roles)
        })?;
        let item = |role: &RoleDefinition| {
            json!({"actions": role.actions, "notActions": role.not_actions, "dataActions": role.data_actions,
                   "notDataActions": role.not_data_actions})
        };
        Ok(Answer::list(found.iter().map(item).collect()))
    }

    /// What a principal of the caller's tenant is.
    fn principal_kind(&self, oid: Id128) -> Result<Option<PrincipalKind>> {
        let tenant = self.principal.tenant;
        self.view(|view| {
            let applications = read::applications(view)?;
            if applications.iter().any(|found| found.has_principal && (found.tenant, found.oid) == (tenant, oid)) {
                return Ok(Some(PrincipalKind::ServicePrincipal));
            }
            if read::users(view)?.iter().any(|found| (found.tenant, found.oid) == (tenant, oid)) {
                return Ok(Some(PrincipalKind::User));
            }
            let group = read::groups(view)?.iter().any(|found| (found.tenant, found.oid) == (tenant, oid));
            Ok(group.then_some(PrincipalKind::Group))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_merged_where_that_is_exact() {
        let of = |list: Value| Permissions::of(&list);
        let merged = of(json!([{"actions": ["a/b"], "dataActions": ["*"]}, {"actions": ["c/d"], "notActions": []}]));
        let want = Permissions {
            actions: vec!["a/b".into(), "c/d".into()],
            data_actions: vec!["*".into()],
            ..Permissions::default()
        };
        assert_eq!(merged.unwrap(), want);
        assert_eq!(of(Value::Null).unwrap(), Permissions::default());
        let same = json!([{"actions": ["a/b"], "notActions": ["a/c"]}, {"actions": ["*"], "notActions": ["a/c"]}]);
        assert_eq!(of(same).unwrap().not_actions, ["a/c"]);
        let apart = of(json!([{"actions": ["a/b"]}, {"dataActions": ["*"], "notDataActions": ["a/c"]}])).unwrap();
        assert_eq!(
            (apart.actions, apart.data_actions, apart.not_data_actions.len()),
            (vec!["a/b".into()], vec!["*".into()], 1)
        );
        for (list, want) in [
            (json!([{"actions": ["*"], "notActions": ["a/c"]}, {"actions": ["b/*"]}]), "InvalidRoleDefinition"),
            (
                json!([{"dataActions": ["*"]}, {"dataActions": ["a/*"], "notDataActions": ["a/c"]}]),
                "InvalidRoleDefinition",
            ),
            (json!([{"actions": ["*"], "condition": "x"}]), "ConditionNotSupported"),
            (json!([{"actions": ["*"]}, {"actions": ["*"], "condition": "x"}]), "ConditionNotSupported"),
            (json!([{"actions": ["read"]}]), "InvalidActionOrNotAction"),
            (json!([{"notActions": [""]}]), "InvalidActionOrNotAction"),
            (json!([{"dataActions": ["read"]}]), "InvalidDataActionOrNotDataAction"),
            (json!([{"actions": "*"}]), "InvalidRequestContent"),
            (json!(["*"]), "InvalidRequestContent"),
            (json!({"actions": ["*"]}), "InvalidRequestContent"),
        ] {
            let Err(ArmError::Said { status, code, .. }) = of(list.clone()) else { panic!("{list}") };
            assert_eq!((status, code), (400, want), "{list}");
        }
    }
}
