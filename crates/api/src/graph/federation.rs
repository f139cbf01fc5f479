//! Federated credentials of an application.

use super::{bad, missing, Graph, Result};
use crate::directory;
use crate::service::fresh_id;
use claviger_state_machine::read;
use claviger_state_machine::records::Application;
use claviger_types::command::{Command, DeleteFederatedCredential, FederatedCredential, PutFederatedCredential};
use serde_json::{json, Value};

pub(crate) fn render(found: &FederatedCredential) -> Value {
    json!({
        "id": found.id.guid(),
        "name": found.name,
        "issuer": found.issuer,
        "subject": found.subject,
        "audiences": found.audiences,
        "description": found.description,
    })
}

/// The members of a body over those of `old`.
fn changed(old: FederatedCredential, body: &Value) -> Result<FederatedCredential> {
    let text = |name: &str, old: String| match &body[name] {
        Value::Null => Ok(old),
        Value::String(text) => Ok(text.clone()),
        _ => Err(bad(format!("'{name}' is no text."))),
    };
    let audiences = match &body["audiences"] {
        Value::Null => old.audiences,
        Value::Array(list) => {
            let texts = list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| bad("'audiences' is no list of texts."))?
        }
        _ => return Err(bad("'audiences' is no list of texts.")),
    };
    if !body["claimsMatchingExpression"].is_null() {
        return Err(bad("'claimsMatchingExpression' is not there in this release of Claviger: name the subject."));
    }
    directory::federated(FederatedCredential {
        id: old.id,
        name: text("name", old.name)?,
        issuer: text("issuer", old.issuer)?,
        subject: text("subject", old.subject)?,
        audiences,
        description: text("description", old.description)?,
    })
    .map_err(bad)
}

impl Graph<'_> {
    fn federated(&self, application: &Application, id: &str) -> Result<FederatedCredential> {
        let all = self.view(|view| read::federated_credentials(view, application.app))?;
        let mut all = all.into_iter();
        let found = all.find(|found| found.id.guid().eq_ignore_ascii_case(id) || found.name.eq_ignore_ascii_case(id));
        found.ok_or_else(|| missing(id))
    }

    async fn put_federated(&self, application: &Application, credential: FederatedCredential) -> Result<()> {
        let put = PutFederatedCredential { tenant: application.tenant, app: application.app, credential };
        self.propose(Command::PutFederatedCredential(put)).await
    }

    /// A request below `applications/{id}/federatedIdentityCredentials`.
    pub(super) async fn federation(
        &self,
        method: &str,
        application: &Application,
        rest: &[&str],
    ) -> Result<(u16, Option<Value>)> {
        match (method, rest) {
            ("GET", []) => {
                let all = self.view(|view| read::federated_credentials(view, application.app))?;
                self.list(all.iter().map(render).collect(), "federatedIdentityCredentials")
            }
            ("POST", []) => {
                let none = FederatedCredential {
                    id: fresh_id()?,
                    name: String::new(),
                    issuer: String::new(),
                    subject: String::new(),
                    audiences: Vec::new(),
                    description: String::new(),
                };
                let credential = changed(none, &self.json()?)?;
                let shown = render(&credential);
                self.put_federated(application, credential).await?;
                Ok((201, Some(shown)))
            }
            ("GET", [id]) => Ok((200, Some(render(&self.federated(application, id)?)))),
            ("PATCH", [id]) => {
                let old = self.federated(application, id)?;
                self.put_federated(application, changed(old, &self.json()?)?).await?;
                Ok((204, None))
            }
            ("DELETE", [id]) => {
                let found = self.federated(application, id)?;
                let (tenant, app) = (application.tenant, application.app);
                let delete = DeleteFederatedCredential { tenant, app, id: found.id };
                self.propose(Command::DeleteFederatedCredential(delete)).await?;
                Ok((204, None))
            }
            _ => Err(super::no_segment("federatedIdentityCredentials")),
        }
    }
}
