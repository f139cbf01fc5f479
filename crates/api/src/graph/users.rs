//! Users and groups: made, changed, removed, looked up.

use super::{bad, missing, render_group, render_user, Graph, Result};
use crate::directory;
use claviger_state_machine::read;
use claviger_state_machine::records::User;
use claviger_types::command::{Command, CreateUser, PrincipalRef, UpdateUser};
use claviger_types::name::Id128;
use serde_json::{json, Value};

impl Graph<'_> {
    /// A user by object id or name.
    pub(super) fn user(&self, id: &str) -> Result<User> {
        let found = self.view(|view| match Id128::parse_guid(id) {
            Ok(oid) => read::user(view, oid),
            Err(_) => read::user_by_name(view, id),
        })?;
        found.filter(|user| user.tenant == self.principal.tenant).ok_or_else(|| missing(id))
    }

    pub(super) fn shown_user(&self, user: &User) -> Result<Value> {
        let sign_in = self.view(|view| read::sign_in(view, user.oid))?;
        Ok(render_user(user, sign_in.as_ref()))
    }

    /// The password of `passwordProfile`. There is no page to change one on, so none can be made to.
    fn password(body: &Value) -> Result<Option<&str>> {
        let profile = &body["passwordProfile"];
        if profile["forceChangePasswordNextSignIn"] == json!(true) {
            return Err(bad("'forceChangePasswordNextSignIn' is not there in this release of Claviger."));
        }
        let password = profile["password"].as_str();
        password.map(directory::new_password).transpose().map_err(bad)?;
        Ok(password)
    }

    pub(super) async fn create_user(&self) -> Result<(u16, Option<Value>)> {
        let body = self.json()?;
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let upn = directory::upn(text("userPrincipalName")).map_err(bad)?;
        let display_name = directory::display_name(text("displayName")).map_err(bad)?;
        let Some(password) = Self::password(&body)? else {
            return Err(bad("A value is required for property 'passwordProfile' of resource 'User'."));
        };
        let enabled = body["accountEnabled"].as_bool().unwrap_or(true);
        let tenant = self.principal.tenant;
        let made: CreateUser = directory::new_user(tenant, upn, display_name, Some(password), enabled).await?;
        let oid = made.oid.guid();
        self.propose(Command::CreateUser(made)).await?;
        Ok((201, Some(self.shown_user(&self.user(&oid)?)?)))
    }

    pub(super) async fn update_user(&self, id: &str) -> Result<(u16, Option<Value>)> {
        let user = self.user(id)?;
        let body = self.json()?;
        let display_name = body["displayName"].as_str().map(directory::display_name).transpose().map_err(bad)?;
        let password = match Self::password(&body)? {
            Some(password) => Some(directory::hash(password).await?),
            None => None,
        };
        let enabled = body["accountEnabled"].as_bool();
        let update = UpdateUser { tenant: user.tenant, oid: user.oid, display_name, password, enabled };
        self.propose(Command::UpdateUser(update)).await?;
        Ok((204, None))
    }

    pub(super) async fn delete_user(&self, id: &str) -> Result<(u16, Option<Value>)> {
        let user = self.user(id)?;
        self.propose(Command::DeleteUser(PrincipalRef { tenant: user.tenant, oid: user.oid })).await?;
        Ok((204, None))
    }

    pub(super) async fn delete_group(&self, id: &str) -> Result<(u16, Option<Value>)> {
        let group = self.group(id)?;
        self.propose(Command::DeleteGroup(PrincipalRef { tenant: group.tenant, oid: group.oid })).await?;
        Ok((204, None))
    }

    /// Ids of the groups that a principal belongs to.
    pub(super) fn groups_of(&self, oid: Id128) -> Result<Vec<String>> {
        let found = self.view(|view| read::principals(view, oid))?;
        Ok(found.iter().skip(1).map(|group| group.guid()).collect())
    }

    pub(super) fn member_groups(&self, oid: Id128) -> Result<(u16, Option<Value>)> {
        Ok((200, Some(json!({"value": self.groups_of(oid)?}))))
    }

    /// Which of the groups that are named a principal belongs to.
    pub(super) fn check_member_groups(&self, oid: Id128) -> Result<(u16, Option<Value>)> {
        let body = self.json()?;
        let asked = body["groupIds"].as_array().ok_or_else(|| bad("'groupIds' is no list."))?;
        let is_asked = |id: &String| asked.iter().any(|a| a.as_str().is_some_and(|a| a.eq_ignore_ascii_case(id)));
        let found: Vec<String> = self.groups_of(oid)?.into_iter().filter(is_asked).collect();
        Ok((200, Some(json!({"value": found}))))
    }

    /// The groups themselves.
    pub(super) fn member_of(&self, oid: Id128) -> Result<(u16, Option<Value>)> {
        let ids = self.groups_of(oid)?;
        let groups = self.groups()?;
        let items = groups.iter().filter(|group| ids.contains(&group.oid.guid()));
        self.list(items.map(|group| super::typed(render_group(group), "group")).collect(), "directoryObjects")
    }
}
