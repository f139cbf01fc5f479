//! `claviger identity`: applications, users, groups and their credentials, on a cluster.

use crate::cli::ConfigArg;
use crate::world::PassphraseSource;
use anyhow::{bail, Context, Result};
use clap::{Args, Subcommand};
use claviger_api::{AdminCommand, DirectoryCommand};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Largest certificate file: a chain is a few kilobytes.
const PEM_BYTES_MAX: u64 = 64 * 1024;

#[derive(Args)]
pub(crate) struct Application {
    /// The application: client id, object id or display name.
    #[arg(long, value_name = "ID|NAME")]
    application: String,
}

#[derive(Args)]
pub(crate) struct User {
    /// The user: name or object id.
    #[arg(long, value_name = "NAME|ID")]
    user: String,
}

#[derive(Args)]
pub(crate) struct Group {
    /// The group: object id or display name.
    #[arg(long, value_name = "ID|NAME")]
    group: String,
}

/// Where a password comes from. It is never an argument: those are everybody's to see.
#[derive(Args)]
pub(crate) struct Password {
    /// Take the password from the first line of standard input [default: make one and print it].
    #[arg(long)]
    password_stdin: bool,
    /// Take the password from the first line of this file, mode 0600.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Take the password from this environment variable.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["password_stdin", "password_file"])]
    password_env: Option<String>,
}

impl Password {
    fn read(self) -> Result<Option<Zeroizing<String>>> {
        let source = match self {
            Self { password_env: Some(name), .. } => PassphraseSource::Env(name),
            Self { password_file: Some(path), .. } => PassphraseSource::File(path),
            Self { password_stdin: true, .. } => PassphraseSource::Stdin,
            _ => return Ok(None),
        };
        let bytes = source.read().context("cannot read the password")?;
        let text = std::str::from_utf8(bytes.expose()).ok().context("the password is not UTF-8")?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }
}

/// Answers are JSON, in the words of the directory (Microsoft Graph).
#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make a tenant with a subscription, and an application that owns it; prints its credentials, once. With them, `az` and
    /// the SDKs do everything else in it.
    CreateTenant {
        #[command(flatten)]
        config: ConfigArg,
        /// For people.
        #[arg(long)]
        display_name: String,
        /// By which sign-ins may name it, such as contoso.example.com.
        #[arg(long)]
        domain: String,
    },
    /// Show all tenants with their subscriptions.
    ListTenants {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Make an application of the first tenant with a client secret; prints its credentials. It may do nothing until a
    /// vault says so.
    CreateApplication {
        #[command(flatten)]
        config: ConfigArg,
        /// For people.
        #[arg(long)]
        display_name: String,
    },
    /// Show all applications.
    ListApplications {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show an application with its credentials, secrets left out.
    ShowApplication {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
    },
    /// Remove an application: its tokens stop working at once.
    DeleteApplication {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
    },
    /// Give an application another client secret; prints it, once.
    AddSecret {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// For people.
        #[arg(long, default_value = "")]
        display_name: String,
        /// Days for which it is good.
        #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u64).range(1..=36_500))]
        days: u64,
    },
    /// Take a client secret back.
    RemoveSecret {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// `keyId` of the secret.
        #[arg(long)]
        key_id: String,
    },
    /// Let an application sign in with the key of a certificate.
    AddCertificate {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// The certificate, PEM.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// For people.
        #[arg(long, default_value = "")]
        display_name: String,
    },
    /// Take a certificate back.
    RemoveCertificate {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// `keyId` of the certificate.
        #[arg(long)]
        key_id: String,
    },
    /// Let an application sign in with tokens of another issuer (workload identity). The issuer must be one of
    /// identity.issuers in the configuration.
    AddFederatedCredential {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// Name of the credential.
        #[arg(long)]
        name: String,
        /// `iss` of the tokens.
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// `sub` of the tokens.
        #[arg(long)]
        subject: String,
        /// `aud` of the tokens; may be repeated.
        #[arg(long = "audience", value_name = "AUDIENCE", default_value = "api://AzureADTokenExchange")]
        audiences: Vec<String>,
        /// For people.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Take a federated credential back.
    RemoveFederatedCredential {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        application: Application,
        /// Its name or id.
        #[arg(long, value_name = "NAME|ID")]
        credential: String,
    },
    /// Make a user. It may do nothing until a vault or a role says so.
    CreateUser {
        #[command(flatten)]
        config: ConfigArg,
        /// User principal name, such as alice@example.com.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// For people.
        #[arg(long)]
        display_name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Show all users.
    ListUsers {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show a user.
    ShowUser {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        user: User,
    },
    /// Set a user's password: who is signed in with the old one has to sign in again.
    SetPassword {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        user: User,
        #[command(flatten)]
        password: Password,
    },
    /// Let a user sign in again.
    EnableUser {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        user: User,
    },
    /// Lock a user out: its tokens stop working at once.
    DisableUser {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        user: User,
    },
    /// Remove a user: its tokens stop working at once.
    DeleteUser {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        user: User,
    },
    /// Make a group.
    CreateGroup {
        #[command(flatten)]
        config: ConfigArg,
        /// For people.
        #[arg(long)]
        display_name: String,
    },
    /// Show all groups.
    ListGroups {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show a group with its members.
    ShowGroup {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        group: Group,
    },
    /// Remove a group.
    DeleteGroup {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        group: Group,
    },
    /// Put a user or an application into a group.
    AddMember {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        group: Group,
        /// The user or application.
        #[arg(long, value_name = "NAME|ID")]
        member: String,
    },
    /// Take a user or an application out of a group.
    RemoveMember {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        group: Group,
        /// The user or application.
        #[arg(long, value_name = "NAME|ID")]
        member: String,
    },
    /// Print the object id by which policies and roles name a principal or a group of another issuer.
    ExternalId {
        /// The issuer, as identity.issuers has it.
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// What its tokens say in oid_claim.
        #[arg(long, value_name = "TEXT", conflicts_with = "group")]
        principal: Option<String>,
        /// What its tokens say in groups_claim.
        #[arg(long, value_name = "TEXT")]
        group: Option<String>,
    },
}

impl IdentityCommand {
    /// What is asked, and of which node; `None` is answered here.
    pub(crate) fn request(self) -> Result<Option<(ConfigArg, AdminCommand)>> {
        use DirectoryCommand as D;
        use IdentityCommand as I;
        let (config, command) = match self {
            I::CreateTenant { config, display_name, domain } => {
                return Ok(Some((config, AdminCommand::CreateTenant { display_name, domain })));
            }
            I::ListTenants { config } => return Ok(Some((config, AdminCommand::ListTenants))),
            I::CreateApplication { config, display_name } => {
                return Ok(Some((config, AdminCommand::CreateApplication { display_name })));
            }
            I::ExternalId { issuer, principal, group } => {
                let (kind, name) = match (&principal, &group) {
                    (Some(name), _) => ("principal", name),
                    (None, Some(name)) => ("group", name),
                    (None, None) => bail!("neither --principal nor --group is given"),
                };
                crate::cli::say(&claviger_api::external_object_id(&issuer, kind, name).guid());
                return Ok(None);
            }
            I::ListApplications { config } => (config, D::ListApplications),
            I::ShowApplication { config, application: Application { application } } => {
                (config, D::ShowApplication { application })
            }
            I::DeleteApplication { config, application: Application { application } } => {
                (config, D::DeleteApplication { application })
            }
            I::AddSecret { config, application: Application { application }, display_name, days } => {
                (config, D::AddSecret { application, display_name, days })
            }
            I::RemoveSecret { config, application: Application { application }, key_id } => {
                (config, D::RemoveSecret { application, key_id })
            }
            I::AddCertificate { config, application: Application { application }, file, display_name } => {
                let what = || format!("cannot read `{}`", file.display());
                if std::fs::metadata(&file).with_context(what)?.len() > PEM_BYTES_MAX {
                    bail!("`{}` is larger than {PEM_BYTES_MAX} bytes", file.display());
                }
                let pem = std::fs::read_to_string(&file).with_context(what)?;
                (config, D::AddCertificate { application, display_name, pem })
            }
            I::RemoveCertificate { config, application: Application { application }, key_id } => {
                (config, D::RemoveCertificate { application, key_id })
            }
            I::AddFederatedCredential {
                config,
                application: Application { application },
                name,
                issuer,
                subject,
                audiences,
                description,
            } => (config, D::AddFederatedCredential { application, name, issuer, subject, audiences, description }),
            I::RemoveFederatedCredential { config, application: Application { application }, credential } => {
                (config, D::RemoveFederatedCredential { application, credential })
            }
            I::CreateUser { config, user, display_name, password } => {
                (config, D::CreateUser { user, display_name, password: password.read()? })
            }
            I::ListUsers { config } => (config, D::ListUsers),
            I::ShowUser { config, user: User { user } } => (config, D::ShowUser { user }),
            I::SetPassword { config, user: User { user }, password } => {
                (config, D::SetPassword { user, password: password.read()? })
            }
            I::EnableUser { config, user: User { user } } => (config, D::EnableUser { user, enabled: true }),
            I::DisableUser { config, user: User { user } } => (config, D::EnableUser { user, enabled: false }),
            I::DeleteUser { config, user: User { user } } => (config, D::DeleteUser { user }),
            I::CreateGroup { config, display_name } => (config, D::CreateGroup { display_name }),
            I::ListGroups { config } => (config, D::ListGroups),
            I::ShowGroup { config, group: Group { group } } => (config, D::ShowGroup { group }),
            I::DeleteGroup { config, group: Group { group } } => (config, D::DeleteGroup { group }),
            I::AddMember { config, group: Group { group }, member } => {
                (config, D::SetMember { group, member, present: true })
            }
            I::RemoveMember { config, group: Group { group }, member } => {
                (config, D::SetMember { group, member, present: false })
            }
        };
        Ok(Some((config, AdminCommand::Directory(command))))
    }
}
