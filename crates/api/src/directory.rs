//! What the directory holds, as clients and operators may write it: the rules for names, passwords and credentials, in one
//! place for the Graph and for `claviger identity`.

use crate::error::ServiceError;
use crate::service::{fresh_id, fresh_secret};
use claviger_crypto::password;
use claviger_types::command::{ClientSecret, CreateUser, FederatedCredential};
use claviger_types::name::Id128;
use zeroize::Zeroizing;

/// Longest name for people.
const DISPLAY_NAME_MAX: usize = 256;

/// Longest `userPrincipalName`, as the public directory has it.
const UPN_MAX: usize = 113;

/// Shortest password: what can be tried from outside is bounded, and what is stored is dear to try.
const PASSWORD_MIN: usize = 8;

/// Longest password, as the public directory has it.
const PASSWORD_MAX: usize = 256;

/// Longest issuer, subject and audience of a federated credential, as the public directory has it.
const CLAIM_MAX: usize = 600;

/// Longest name of a federated credential, as the public directory has it.
const FEDERATED_NAME_MAX: usize = 120;

/// Most audiences of a federated credential: the public directory recommends one.
const AUDIENCES_MAX: usize = 10;

/// Life of a client secret for which no end is given: two years, as the directory has it.
pub(crate) const SECRET_LIFE: u64 = 730 * 86_400;

/// A rule that was broken, as people are told.
pub(crate) type Checked<T> = Result<T, String>;

pub(crate) fn display_name(text: &str) -> Checked<String> {
    match text.trim() {
        "" => Err("The display name is empty.".into()),
        long if long.len() > DISPLAY_NAME_MAX => {
            Err(format!("The display name is longer than {DISPLAY_NAME_MAX} bytes."))
        }
        good => Ok(good.to_owned()),
    }
}

/// A tenant's domain, in small letters: at least two labels, so that it is not one of the words that stand for any tenant.
pub(crate) fn domain(text: &str) -> Checked<String> {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match text.len() <= 253 && text.contains('.') && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!("'{text}' is no domain in small letters, such as contoso.example.com.")),
    }
}

/// `name@domain`. Any domain will do: the service's users are nobody else's.
pub(crate) fn upn(text: &str) -> Checked<String> {
    let good =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "'.-_!#^~+".contains(c));
    let parts = text.split_once('@').filter(|(name, domain)| good(name) && good(domain));
    match parts {
        Some(_) if text.len() <= UPN_MAX => Ok(text.to_owned()),
        _ => Err(format!("'{text}' is no user principal name such as alice@example.com.")),
    }
}

pub(crate) fn new_password(text: &str) -> Checked<()> {
    match text.chars().count() {
        PASSWORD_MIN..=PASSWORD_MAX => Ok(()),
        _ => Err(format!("A password has {PASSWORD_MIN} to {PASSWORD_MAX} characters.")),
    }
}

/// An issuer as tokens name it.
fn issuer(text: &str) -> Checked<()> {
    match text.starts_with("https://") && text.len() <= CLAIM_MAX {
        true => Ok(()),
        false => Err(format!("The issuer '{text}' is no https address of at most {CLAIM_MAX} bytes.")),
    }
}

/// A federated credential whose members keep the rules.
pub(crate) fn federated(credential: FederatedCredential) -> Checked<FederatedCredential> {
    let FederatedCredential { name, subject, audiences, description, .. } = &credential;
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > FEDERATED_NAME_MAX || !name.chars().all(letters) {
        return Err(format!(
            "A federated credential's name has 1 to {FEDERATED_NAME_MAX} letters, digits, `-` and `_`."
        ));
    }
    issuer(&credential.issuer)?;
    if subject.is_empty() || subject.len() > CLAIM_MAX {
        return Err(format!("The subject is empty or longer than {CLAIM_MAX} bytes."));
    }
    if audiences.is_empty() || audiences.len() > AUDIENCES_MAX {
        return Err(format!("A federated credential has 1 to {AUDIENCES_MAX} audiences."));
    }
    if audiences.iter().any(|audience| audience.is_empty() || audience.len() > CLAIM_MAX) {
        return Err(format!("An audience is empty or longer than {CLAIM_MAX} bytes."));
    }
    if description.len() > CLAIM_MAX {
        return Err(format!("The description is longer than {CLAIM_MAX} bytes."));
    }
    Ok(credential)
}

/// The hash of a password or secret; computed off the request's thread, for it is expensive on purpose.
pub(crate) async fn hash(secret: &str) -> Result<String, ServiceError> {
    let secret = Zeroizing::new(secret.to_owned());
    let hashed = tokio::task::spawn_blocking(move || password::hash(&secret)).await;
    Ok(hashed.map_err(|_| ServiceError::Internal)??)
}

/// A new user; the parts are checked already.
pub(crate) async fn new_user(
    tenant: Id128,
    upn: String,
    display_name: String,
    password: Option<&str>,
    enabled: bool,
) -> Result<CreateUser, ServiceError> {
    let password = match password {
        Some(password) => Some(hash(password).await?),
        None => None,
    };
    Ok(CreateUser { tenant, oid: fresh_id()?, upn, display_name, password, enabled })
}

/// A new client secret, and the secret itself, which nobody is told again.
pub(crate) async fn new_secret(
    display_name: String,
    start: u64,
    end: Option<u64>,
) -> Result<(ClientSecret, Zeroizing<String>), ServiceError> {
    let text = Zeroizing::new(fresh_secret()?);
    let hint = text.chars().take(3).collect();
    let secret = ClientSecret { id: fresh_id()?, hash: hash(&text).await?, hint, display_name, start, end };
    Ok((secret, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_keep_the_rules() {
        for good in ["alice@example.com", "a.b-c_d+e@x", "O'Neil@a.test"] {
            assert!(upn(good).is_ok(), "{good}");
        }
        for bad in ["", "alice", "@x", "a@", "a@b@c", "a b@c", "a<@b", "ä@b"] {
            assert!(upn(bad).is_err(), "{bad}");
        }
        assert!(new_password("1234567").is_err());
        assert!(new_password("12345678").is_ok());
        assert!(display_name("  ").is_err());
    }

    #[test]
    fn federated_credentials_keep_the_rules() {
        let good = FederatedCredential {
            id: Id128([1; 16]),
            name: "one".into(),
            issuer: "https://issuer.test".into(),
            subject: "s".into(),
            audiences: vec!["a".into()],
            description: String::new(),
        };
        assert!(federated(good.clone()).is_ok());
        for bad in [
            FederatedCredential { name: "a b".into(), ..good.clone() },
            FederatedCredential { issuer: "http://issuer.test".into(), ..good.clone() },
            FederatedCredential { subject: String::new(), ..good.clone() },
            FederatedCredential { audiences: vec![], ..good.clone() },
            FederatedCredential { audiences: vec!["a".into(); 11], ..good.clone() },
        ] {
            assert!(federated(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
