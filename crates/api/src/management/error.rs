//! Refusals of the resource manager: status, code and text in its envelope.

use crate::error::ServiceError;
use crate::http::error_response;
use actix_web::http::StatusCode;
use actix_web::HttpResponse;
use claviger_crypto::CryptoError;
use claviger_node::NodeError;
use claviger_state_machine::records::Vault;
use claviger_state_machine::ApplyError;
use claviger_types::name::Kind;
use claviger_types::outcome::Refusal;
use serde_json::json;

/// Why a management request was not carried out.
#[derive(Debug)]
pub(crate) enum ArmError {
    /// What the resource manager itself says.
    Said {
        /// HTTP status.
        status: u16,
        /// Code.
        code: &'static str,
        /// Text.
        message: String,
    },
    /// 401 with this challenge.
    Token {
        /// Code.
        code: &'static str,
        /// Text.
        message: String,
        /// `WWW-Authenticate`.
        challenge: String,
    },
    /// A fault below, in the service's own words.
    Service(ServiceError),
}

impl ArmError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        ArmError::Said { status, code, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn body() -> Self {
        Self::new(
            400,
            "InvalidRequestContent",
            "The request content was invalid and could not be deserialized: it is not a JSON object of the right form.",
        )
    }

    pub(crate) fn group_not_found(name: &str) -> Self {
        Self::new(404, "ResourceGroupNotFound", format!("Resource group '{name}' could not be found."))
    }

    pub(crate) fn vault_not_found(group: &str, name: &str) -> Self {
        let text = format!(
            "The Resource 'Microsoft.KeyVault/vaults/{name}' under resource group '{group}' was not found. For more \
             details please go to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::new(404, "ResourceNotFound", text)
    }

    pub(crate) fn object_not_found(vault: &Vault, kind: Kind, name: &str) -> Self {
        let text = format!(
            "The Resource 'Microsoft.KeyVault/vaults/{}/{}/{name}' under resource group '{}' was not found.",
            vault.display_name,
            kind.collection(),
            vault.group
        );
        Self::new(404, "ResourceNotFound", text)
    }

    /// Of a key or a secret that is to be made or changed through the resource manager.
    pub(crate) fn made_in_the_vault(collection: &str) -> Self {
        let text = format!(
            "Making and changing {collection} through the resource manager is not there in this release of Claviger: \
             use the vault's own address."
        );
        Self::new(501, "NotImplemented", text)
    }

    /// Of whatever is asked about one: there are vaults only.
    pub(crate) fn no_managed_hsm() -> Self {
        Self::new(404, "ResourceNotFound", "There are no managed HSMs in this service: it has vaults.")
    }

    /// Vaults are reached over the network that their nodes listen on, and over no other.
    pub(crate) fn no_private_endpoint() -> Self {
        Self::new(404, "ResourceNotFound", "There are no private endpoint connections in this service.")
    }

    /// Nobody is believed about environments.
    pub(crate) fn no_attestation() -> Self {
        let text = "There is no default attestation provider: no attestation authority is configured in this service.";
        Self::new(404, "ResourceNotFound", text)
    }

    /// What a refusal of the state machine means where no request has a better word for it.
    pub(crate) fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::VaultNotFound => Self::new(404, "VaultNotFound", "The vault was not found."),
            Refusal::VaultExists => Self::new(
                409,
                "VaultAlreadyExists",
                "The vault name is already in use. Vault names are globally unique so it is possible that the name is \
                 already taken.",
            ),
            Refusal::VaultDeleted => Self::new(
                409,
                "ConflictError",
                "A vault with the same name already exists in deleted state. You need to either recover or purge \
                 existing key vault. Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more \
                 information on soft delete.",
            ),
            Refusal::VaultNotDeleted => Self::new(404, "DeletedVaultNotFound", "The vault is not deleted."),
            Refusal::PurgeProtected => {
                Self::new(405, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed.")
            }
            Refusal::GroupNotFound => Self::new(404, "ResourceGroupNotFound", "The resource group could not be found."),
            Refusal::GroupNotEmpty | Refusal::Changed => Self::new(
                409,
                "Conflict",
                "The resource was changed by another request meanwhile. Look at it and try again.",
            ),
            Refusal::AssignmentExists => {
                Self::new(409, "RoleAssignmentExists", "The role assignment already exists.")
            }
            Refusal::AssignmentNotFound => Self::new(404, "RoleAssignmentNotFound", "The role assignment was not found."),
            Refusal::RoleNotFound => {
                Self::new(400, "RoleDefinitionDoesNotExist", "The specified role definition does not exist here.")
            }
            Refusal::RoleExists => Self::new(
                409,
                "RoleDefinitionWithSameNameExists",
                "A role of this name exists, or the id is a built-in role's.",
            ),
            Refusal::RoleInUse => Self::new(
                400,
                "RoleDefinitionHasAssignments",
                "There are existing role assignments referencing role.",
            ),
            Refusal::PrincipalNotFound => {
                Self::new(404, "Request_ResourceNotFound", "The resource does not exist in the directory.")
            }
            Refusal::PrincipalExists => Self::new(
                409,
                "Request_MultipleObjectsWithSameKeyValue",
                "Another object with the same value for property userPrincipalName, name or issuer and subject already \
                 exists.",
            ),
            Refusal::TooMany => Self::new(400, "LimitExceeded", "There are too many of them already."),
            Refusal::Forbidden => Self::new(
                403,
                "AuthorizationFailed",
                "The client does not have authorization to perform this action. If access was recently granted, please \
                 refresh your credentials.",
            ),
            other => {
                tracing::error!(refusal = ?other, "a management command was refused for a reason of the data plane");
                ArmError::Service(ServiceError::Internal)
            }
        }
    }

    /// What people are told.
    pub(crate) fn text(&self) -> String {
        match self {
            ArmError::Said { message, .. } | ArmError::Token { message, .. } => message.clone(),
            ArmError::Service(error) => error.to_wire().1.error.message,
        }
    }

    pub(crate) fn response(&self) -> HttpResponse {
        let envelope = |code: &str, message: &str| json!({"error": {"code": code, "message": message}});
        match self {
            ArmError::Said { status, code, message } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                HttpResponse::build(status).json(envelope(code, message))
            }
            ArmError::Token { code, message, challenge } => HttpResponse::Unauthorized()
                .insert_header(("www-authenticate", challenge.clone()))
                .json(envelope(code, message)),
            ArmError::Service(error) => error_response(error, None),
        }
    }
}

impl From<ServiceError> for ArmError {
    fn from(error: ServiceError) -> Self {
        ArmError::Service(error)
    }
}

impl From<ApplyError> for ArmError {
    fn from(error: ApplyError) -> Self {
        ArmError::Service(error.into())
    }
}

impl From<NodeError> for ArmError {
    fn from(error: NodeError) -> Self {
        ArmError::Service(error.into())
    }
}

impl From<CryptoError> for ArmError {
    fn from(error: CryptoError) -> Self {
        ArmError::Service(error.into())
    }
}
