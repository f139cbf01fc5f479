//! Certificates: a small authority for `claviger dev` and for new clusters, and the one table of host names that
//! Claviger answers for.
//!
//! The shapes follow what the strictest client asks (Python 3.13 and later verify with `VERIFY_X509_STRICT`,
//! contract/identity.md section 8): the authority has critical basicConstraints and keyUsage and a subject key
//! identifier; a leaf has an authority key identifier, names in the SAN alone, and a keyUsage that signs and nothing
//! else. All keys are ECDSA P-256, which every client of the contract takes.
//!
//! There is no revocation: a leaf lives two years and a lost one is answered by a new authority, which the nodes of one
//! cluster exchange in minutes. A cluster may as well bring certificates of its operator's own authority.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{ensure, Context, Result};
use claviger_crypto::random;
use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of an authority: clients pin it by hand, so it should outlive the installation's memory of how that was done.
const AUTHORITY_LIFE: Duration = Duration::from_secs(DAY.as_secs() * 3650);

/// Life of a leaf unless told otherwise. Apple's and others' clients refuse more than 825 days even of private
/// authorities; two years stay below.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(DAY.as_secs() * 730);

/// Certificates begin an hour ago, for the client whose clock is late.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// The host names that Claviger answers for in `dev`: those of the public, China and US government clouds, and its own
/// under `localhost`. `*` stands for one label. The dev certificate, and the CONNECT endpoint's list of permitted
/// hosts, are this table.
pub(crate) const DEV_HOSTS: &[&str] = &[
    // vaults
    "*.vault.azure.net",
    "*.vault.azure.cn",
    "*.vault.usgovcloudapi.net",
    // token service
    "login.microsoftonline.com",
    "login.microsoft.com",
    "login.windows.net",
    "sts.windows.net",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
    "login.microsoftonline.us",
    // resource manager
    "management.azure.com",
    "management.chinacloudapi.cn",
    "management.usgovcloudapi.net",
    // directory
    "graph.microsoft.com",
    "graph.windows.net",
    "microsoftgraph.chinacloudapi.cn",
    "graph.microsoft.us",
    // the same four under a name that never leaves the machine
    "*.vault.localhost",
    "login.localhost",
    "management.localhost",
    "graph.localhost",
    "localhost",
];

/// The addresses of the dev certificate.
const DEV_ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Names and addresses of the certificate of `claviger dev`.
pub(crate) fn dev_names() -> (Vec<String>, Vec<IpAddr>) {
    (DEV_HOSTS.iter().map(|name| (*name).to_owned()).collect(), DEV_ADDRESSES.to_vec())
}

/// Names that the API certificate of a cluster needs for its domain, one per plane.
pub(crate) fn api_names(domain: &str) -> Vec<String> {
    ["*.vault", "login", "management", "graph"].iter().map(|plane| format!("{plane}.{domain}")).collect()
}

/// Name in every peer certificate, beside the node's own: a seed is called before its own name is known.
pub(crate) const ANY_PEER: &str = "peer.claviger";

/// Whether a certificate's (or table's) name covers a host: equal without case, or `*.` and exactly one more label
/// (RFC 6125 section 6.4.3).
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && label != "*" && rest.eq_ignore_ascii_case(parent)),
    }
}

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// A server that clients call: the API.
    Server,
    /// Both ends of a connection, under one name: a node among its peers.
    ServerAndClient,
}

/// A certificate chain and its key, both PEM.
pub(crate) struct Issued {
    /// The leaf, then intermediates if there are any; the root is the client's to have.
    pub(crate) chain_pem: String,
    /// The leaf's private key, PKCS #8.
    pub(crate) key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issued(..)")
    }
}

/// A certificate authority with its key.
pub(crate) struct Authority {
    /// As created or loaded, the authority's own certificate first.
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    /// What follows a leaf in its chain: the certificates of `certificate_pem` that are not roots.
    intermediates_pem: String,
    /// Seconds since the epoch; no leaf outlives its authority.
    not_after: u64,
    key: Zeroizing<KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new root of this name, valid for ten years.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let key = new_key()?;
        let mut params = params(AUTHORITY_LIFE, None)?;
        params.distinguished_name = distinguished_name(Some(name));
        // Leaves only: what is lost with the key stays one level deep.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&*key).context("cannot make the authority's certificate")?;
        Self::from_parts(certificate.pem(), key)
    }

    /// An authority from storage. Refuses a key that is not the certificate's, and a certificate that is no
    /// authority's.
    pub(crate) fn load(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key_pem).ok().context("the authority's key is not a PEM private key")?;
        Self::from_parts(certificate_pem.to_owned(), Zeroizing::new(key))
    }

    fn from_parts(certificate_pem: String, key: Zeroizing<KeyPair>) -> Result<Self> {
        let chain = parse_chain(&certificate_pem)?;
        let certificate = chain.first().context("the authority has no certificate")?.clone();
        let mut intermediates_pem = String::new();
        for (der, text) in chain.iter().zip(pem_blocks(&certificate_pem)) {
            let parsed = parse(der)?;
            if parsed.subject().as_raw() != parsed.issuer().as_raw() {
                intermediates_pem.push_str(text);
            }
        }
        let parsed = parse(&certificate)?;
        ensure!(parsed.is_ca(), "the certificate is not an authority's: basicConstraints does not say so");
        ensure!(
            parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw(),
            "the authority's key does not belong to its certificate"
        );
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { certificate_pem, certificate, intermediates_pem, not_after, key })
    }

    /// The certificate that clients trust, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS #8 PEM, to be stored.
    pub(crate) fn expose_key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// A leaf for these names and addresses, which lives [`LEAF_LIFE`].
    pub(crate) fn issue(&self, names: &[String], addresses: &[IpAddr], usage: Usage) -> Result<Issued> {
        self.issue_for(names, addresses, usage, LEAF_LIFE)
    }

    /// A leaf with a life of its own.
    pub(crate) fn issue_for(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        usage: Usage,
        life: Duration,
    ) -> Result<Issued> {
        ensure!(!names.is_empty() || !addresses.is_empty(), "a certificate needs a name");
        let mut params = params(life, Some(self.not_after))?;
        // No common name: whoever looks for host names anywhere but in the SAN finds none.
        params.distinguished_name = distinguished_name(None);
        for name in names {
            let ia5 = name.as_str().try_into().ok().with_context(|| format!("`{name}` is not a host name"))?;
            params.subject_alt_names.push(SanType::DnsName(ia5));
        }
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::ServerAndClient => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key).context("cannot use the authority")?;
        let key = new_key()?;
        let leaf = params.signed_by(&*key, &issuer).context("cannot issue the certificate")?;
        Ok(Issued { chain_pem: leaf.pem() + &self.intermediates_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

/// What an operator should know of a certificate before a server starts with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// DNS names of the SAN.
    pub(crate) names: Vec<String>,
    /// Start of validity, seconds since the epoch.
    pub(crate) not_before: i64,
    /// End of validity, seconds since the epoch.
    pub(crate) not_after: i64,
    /// Whether it may be an authority's.
    pub(crate) is_ca: bool,
    /// Whether its purposes include a server's; no statement at all includes everything.
    pub(crate) for_server: bool,
    /// Whether its purposes include a client's.
    pub(crate) for_client: bool,
}

impl Inspected {
    /// Whether one of its names covers this host; a `*.` asked for must be there as such.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host) || covers(name, host))
    }
}

/// Reads the first certificate of a PEM text.
pub(crate) fn inspect(chain_pem: &str) -> Result<Inspected> {
    use x509_parser::prelude::GeneralName;
    let chain = parse_chain(chain_pem)?;
    let certificate = parse(chain.first().context("no certificate in it")?)?;
    let names = certificate.subject_alternative_name().context("its names cannot be read")?.map(|san| {
        san.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
    });
    let names = names.into_iter().flatten().collect();
    let purposes = certificate.extended_key_usage().context("its purposes cannot be read")?;
    let (for_server, for_client) = purposes.map_or((true, true), |purposes| {
        let any = purposes.value.any;
        (any || purposes.value.server_auth, any || purposes.value.client_auth)
    });
    Ok(Inspected {
        names,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        is_ca: certificate.is_ca(),
        for_server,
        for_client,
    })
}

/// Whether a private key is the first certificate's.
pub(crate) fn key_matches(chain_pem: &str, key_pem: &[u8]) -> Result<bool> {
    let chain = parse_chain(chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).ok().context("not a PEM private key")?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .ok()
        .context("not a private key of a kind that TLS can use")?;
    match rustls::sign::CertifiedKey::new(chain, key).keys_match() {
        Ok(()) => Ok(true),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => Ok(false),
        Err(error) => Err(error).context("the certificate cannot be read"),
    }
}

/// Whether the first certificate of a chain is a client's that these authorities vouch for, at this time (seconds since
/// the epoch). What a peer will ask of it, asked beforehand. Validity in time is not decided here.
pub(crate) fn is_issued_by(authorities_pem: &str, chain_pem: &str, now: i64) -> Result<bool> {
    use rustls::{CertificateError, Error};
    let mut roots = rustls::RootCertStore::empty();
    for certificate in parse_chain(authorities_pem)? {
        ensure!(parse(&certificate)?.is_ca(), "a certificate in it is not an authority's");
        roots.add(certificate).ok().context("a certificate in it cannot be used as an authority's")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let chain = parse_chain(chain_pem)?;
    let (leaf, intermediates) = chain.split_first().context("no certificate in it")?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    match verifier.verify_client_cert(leaf, intermediates, now) {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => Ok(false),
        _ => Ok(true),
    }
}

fn parse_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
        .context("not PEM certificates")?;
    ensure!(!chain.is_empty(), "no PEM certificate in it");
    Ok(chain)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    let (_, certificate) = X509Certificate::from_der(der).ok().context("not an X.509 certificate")?;
    Ok(certificate)
}

/// The certificates of a PEM text as they stand there, in order.
fn pem_blocks(pem: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.match_indices(BEGIN).map(|(start, _)| {
        let block = pem.get(start..).unwrap_or_default();
        let end = block.find(END).map_or(block.len(), |end| end + END.len());
        block.get(..end).unwrap_or_default()
    })
}

fn new_key() -> Result<Zeroizing<KeyPair>> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Zeroizing::new).context("cannot make a key")
}

/// What every certificate has: a validity from an hour ago, never beyond `limit`, and a random serial number.
fn params(life: Duration, limit: Option<u64>) -> Result<CertificateParams> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let end = (now + life).min(limit.map_or(Duration::MAX, Duration::from_secs));
    ensure!(end > now, "the authority's certificate has expired");
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE).as_secs());
    params.not_after = epoch + Duration::from_secs(end.as_secs());
    let mut serial: [u8; 16] = random::bytes()?;
    // Positive, and of one length (RFC 5280 section 4.1.2.2).
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn distinguished_name(common_name: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Claviger");
    if let Some(common_name) = common_name {
        name.push(DnType::CommonName, common_name);
    }
    name
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> String {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn openssl(args: &[&str]) -> Output {
        Command::new("openssl").args(args).output().unwrap()
    }

    /// The strict mode is the one that Python 3.13 switches on.
    fn verify(dir: &Path, authority: &Authority, issued: &Issued, more: &[&str]) -> bool {
        let ca = write(dir, "ca.pem", authority.certificate_pem());
        let leaf = write(dir, "leaf.pem", &issued.chain_pem);
        openssl(&[&["verify", "-x509_strict", "-CAfile", &ca], more, &[&leaf]].concat()).status.success()
    }

    fn text_of(dir: &Path, pem: &str) -> String {
        let path = write(dir, "show.pem", pem);
        String::from_utf8(openssl(&["x509", "-noout", "-text", "-in", &path]).stdout).unwrap()
    }

    #[test]
    fn the_dev_certificate_verifies_strictly_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("Claviger dev").unwrap();
        let (names, addresses) = dev_names();
        let issued = authority.issue(&names, &addresses, Usage::Server).unwrap();
        assert!(key_matches(&issued.chain_pem, issued.key_pem.as_bytes()).unwrap());
        for name in &names {
            let host = name.replace('*', "my-vault");
            assert!(verify(dir.path(), &authority, &issued, &["-purpose", "sslserver", "-verify_hostname", &host]));
        }
        for address in ["127.0.0.1", "::1"] {
            assert!(verify(dir.path(), &authority, &issued, &["-verify_ip", address]), "{address}");
        }
        for host in ["example.com", "vault.azure.net", "a.b.vault.azure.net", "Claviger"] {
            assert!(!verify(dir.path(), &authority, &issued, &["-verify_hostname", host]), "{host}");
        }
        assert!(!verify(dir.path(), &authority, &issued, &["-purpose", "sslclient"]));
        let other = Authority::create("Claviger dev").unwrap();
        assert!(!verify(dir.path(), &other, &issued, &[]));
    }

    #[test]
    fn extensions_are_what_strict_clients_ask_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("Claviger dev").unwrap();
        let ca = text_of(dir.path(), authority.certificate_pem());
        for want in [
            "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
            "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
            "X509v3 Subject Key Identifier:",
            "Public-Key: (256 bit)",
            "ASN1 OID: prime256v1",
        ] {
            assert!(ca.contains(want), "{want}\n{ca}");
        }
        let leaf =
            text_of(dir.path(), &authority.issue(&["n1".into()], &[], Usage::ServerAndClient).unwrap().chain_pem);
        for want in [
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Authority Key Identifier:",
            "X509v3 Subject Alternative Name: \n                DNS:n1\n",
            "Subject: O = Claviger\n",
            "Version: 3",
        ] {
            assert!(leaf.contains(want), "{want}\n{leaf}");
        }
    }

    #[test]
    fn a_stored_authority_issues_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::create("cluster").unwrap();
        let again = Authority::load(first.certificate_pem(), &first.expose_key_pem()).unwrap();
        let issued = again.issue(&["node1".into()], &[], Usage::ServerAndClient).unwrap();
        assert!(verify(dir.path(), &first, &issued, &["-purpose", "sslclient", "-verify_hostname", "node1"]));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let authority = Authority::create("one").unwrap();
        let other = Authority::create("two").unwrap();
        let leaf = authority.issue(&["n".into()], &[], Usage::Server).unwrap();
        let key = authority.expose_key_pem();
        let cases = [
            (authority.certificate_pem(), other.expose_key_pem(), "does not belong"),
            (&leaf.chain_pem, leaf.key_pem.clone(), "not an authority's"),
            ("", key.clone(), "no PEM certificate"),
            (authority.certificate_pem(), Zeroizing::new("nonsense".to_owned()), "not a PEM private key"),
        ];
        for (certificate, key, want) in cases {
            let error = Authority::load(certificate, &key).unwrap_err().to_string();
            assert!(error.contains(want), "{want}: {error}");
        }
        assert!(!key_matches(&leaf.chain_pem, key.as_bytes()).unwrap());
        assert!(authority.issue(&[], &[], Usage::Server).is_err());
        assert!(authority.issue(&["ü".into()], &[], Usage::Server).is_err());
    }

    #[test]
    fn no_leaf_outlives_its_authority_and_serials_differ() {
        let authority = Authority::create("one").unwrap();
        let issue = |life| authority.issue_for(&["n".into()], &[], Usage::Server, life).unwrap();
        let long = inspect(&issue(DAY * 36_500).chain_pem).unwrap();
        assert_eq!(u64::try_from(long.not_after).unwrap(), authority.not_after);
        let short = inspect(&issue(DAY).chain_pem).unwrap();
        assert_eq!(short.not_after - short.not_before, 25 * 60 * 60);
        let serial = |pem: &str| {
            let chain = parse_chain(pem).unwrap();
            parse(&chain[0]).unwrap().raw_serial().to_vec()
        };
        assert_ne!(serial(&issue(DAY).chain_pem), serial(&issue(DAY).chain_pem));
        assert_eq!(serial(&issue(DAY).chain_pem).len(), 16);
    }

    #[test]
    fn inspection_reads_names_and_purposes() {
        let authority = Authority::create("one").unwrap();
        let issued = authority.issue(&api_names("kms.example.test"), &[], Usage::Server).unwrap();
        let seen = inspect(&issued.chain_pem).unwrap();
        assert_eq!((seen.is_ca, seen.for_server, seen.for_client), (false, true, false));
        for host in ["*.vault.kms.example.test", "v.vault.kms.example.test", "Login.kms.example.test"] {
            assert!(seen.is_for(host), "{host}");
        }
        assert!(!seen.is_for("kms.example.test"));
        assert!(inspect(authority.certificate_pem()).unwrap().is_ca);
        assert!(inspect("hello").is_err());
    }

    #[test]
    fn issuers_are_told_apart() {
        let (one, two) = (Authority::create("same name").unwrap(), Authority::create("same name").unwrap());
        let leaf = one.issue(&["node1".into()], &[], Usage::ServerAndClient).unwrap();
        let now = inspect(&leaf.chain_pem).unwrap().not_before + 1;
        let both = two.certificate_pem().to_owned() + one.certificate_pem();
        assert!(is_issued_by(one.certificate_pem(), &leaf.chain_pem, now).unwrap());
        assert!(is_issued_by(&both, &leaf.chain_pem, now).unwrap());
        assert!(!is_issued_by(two.certificate_pem(), &leaf.chain_pem, now).unwrap());
        assert!(is_issued_by(&leaf.chain_pem, &leaf.chain_pem, now).is_err());
    }

    #[test]
    fn wildcards_cover_one_label() {
        for host in ["a.vault.azure.net", "A.Vault.AZURE.net"] {
            assert!(covers("*.vault.azure.net", host), "{host}");
        }
        for host in
            ["vault.azure.net", ".vault.azure.net", "a.b.vault.azure.net", "avault.azure.net", "a.vault.azure.net."]
        {
            assert!(!covers("*.vault.azure.net", host), "{host}");
        }
        assert!(covers("login.windows.net", "LOGIN.windows.net"));
        assert!(!covers("login.windows.net", "xlogin.windows.net"));
    }
}
