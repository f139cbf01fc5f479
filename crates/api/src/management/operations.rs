//! What can be done with `Microsoft.KeyVault`: the actions that roles name.

use claviger_types::permission::{KeyPermission, Permission, SecretPermission};
use claviger_types::role::DATA_PREFIX;
use serde_json::{json, Value};

/// Actions of the resource manager: name without the provider, resource, what it does.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("register/action", "Subscription", "Register the provider"),
    ("unregister/action", "Subscription", "Unregister the provider"),
    ("operations/read", "Operations", "List operations"),
    ("checkNameAvailability/read", "Vault", "Check whether a name is free"),
    ("vaults/read", "Vault", "Look at a vault"),
    ("vaults/write", "Vault", "Make or change a vault"),
    ("vaults/delete", "Vault", "Delete a vault"),
    ("vaults/accessPolicies/write", "Access policy", "Change a vault's access policies"),
    ("vaults/keys/read", "Key", "Look at what a key is"),
    ("vaults/secrets/read", "Secret", "Look at what a secret is, without its value"),
    ("deletedVaults/read", "Deleted vault", "List deleted vaults"),
    ("locations/deletedVaults/read", "Deleted vault", "Look at a deleted vault"),
    ("locations/deletedVaults/purge/action", "Deleted vault", "Purge a deleted vault"),
    ("locations/operationResults/read", "Operation", "Look at the result of an operation"),
];

fn operation(name: &str, resource: &str, operation: &str, is_data: bool) -> Value {
    json!({
        "name": name,
        "display": {"provider": "Microsoft Key Vault", "resource": resource, "operation": operation,
                    "description": operation},
        "isDataAction": is_data,
    })
}

/// All of them. Data actions are those of the permissions that there are; two that share one are told together.
pub(super) fn all() -> Vec<Value> {
    let plain = |(name, resource, does): &(&str, &str, &str)| {
        operation(&format!("Microsoft.KeyVault/{name}"), resource, does, false)
    };
    let mut found: Vec<Value> = ACTIONS.iter().map(plain).collect();
    let keys = KeyPermission::ALL.iter().map(|permission| Permission::Key(*permission));
    let secrets = SecretPermission::ALL.iter().map(|permission| Permission::Secret(*permission));
    let mut on_data: Vec<(&str, &str, String)> = Vec::new();
    for permission in keys.chain(secrets) {
        let (action, word) = (permission.data_action(), permission.as_str());
        match on_data.iter_mut().find(|(known, ..)| *known == action) {
            Some((_, _, words)) => words.push_str(&format!(", {word}")),
            None => {
                let resource = if matches!(permission, Permission::Key(_)) { "Key" } else { "Secret" };
                on_data.push((action, resource, word.to_owned()));
            }
        }
    }
    found.extend(
        on_data.iter().map(|(a, resource, does)| operation(&format!("{DATA_PREFIX}{a}"), resource, does, true)),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_types::role;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_told_once_and_an_owner_may_do_it() {
        let all = all();
        let of = |item: &Value| (item["name"].as_str().unwrap().to_owned(), item["isDataAction"] == json!(true));
        // Reading keys is both, as in the public cloud: the resource's description, and the key in its vault.
        let names: BTreeSet<(String, bool)> = all.iter().map(of).collect();
        assert_eq!(names.len(), all.len());
        let named = |id: &str| role::built_in().into_iter().find(|role| role.id.guid() == id).unwrap();
        let (owner, administrator) = (named(role::OWNER), named(role::KEY_VAULT_ADMINISTRATOR));
        for (name, is_data) in &names {
            assert!(if *is_data { administrator.allows_data(name) } else { owner.allows(name) }, "{name}");
        }
        assert!(names.contains(&("Microsoft.KeyVault/vaults/keys/sign/action".to_owned(), true)));
    }
}
