//! `api-version` (contract section 1).

use crate::error::ServiceError;

/// Every version that is accepted, oldest first; previews stand where the release that they became stands.
const KNOWN: &[&str] = &[
    "2016-10-01",
    "7.0",
    "7.1-preview",
    "7.1",
    "7.2-preview",
    "7.2",
    "7.3-preview",
    "7.3",
    "7.4-preview.1",
    "7.4",
    "7.5-preview.1",
    "7.5",
    "7.6-preview.1",
    "7.6-preview.2",
    "7.6",
    "2025-06-01-preview",
    "2025-07-01",
    "2026-01-01-preview",
    "2026-03-01-preview",
    "2026-04-01",
];

/// A version that the service knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(usize);

impl ApiVersion {
    /// From the query parameter.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ServiceError> {
        let text = text.filter(|t| !t.is_empty()).ok_or(ServiceError::VersionMissing)?;
        let found = KNOWN.iter().position(|known| known.eq_ignore_ascii_case(text));
        found.map(Self).ok_or_else(|| ServiceError::VersionUnknown(text.to_owned()))
    }

    /// As the caller wrote it, but for case.
    pub(crate) fn as_str(self) -> &'static str {
        KNOWN.get(self.0).copied().unwrap_or("")
    }

    fn since(self, version: &str) -> bool {
        KNOWN.iter().position(|known| *known == version).is_some_and(|position| self.0 >= position)
    }

    /// `recoverableDays` in attributes.
    pub(crate) fn shows_recoverable_days(self) -> bool {
        self.since("7.1-preview")
    }

    /// `hsmPlatform` in attributes of keys.
    pub(crate) fn shows_hsm_platform(self) -> bool {
        self.since("7.5-preview.1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_unknown_missing() {
        assert!(ApiVersion::parse(Some("7.4")).unwrap().shows_recoverable_days());
        assert!(!ApiVersion::parse(Some("7.0")).unwrap().shows_recoverable_days());
        assert!(ApiVersion::parse(Some("2026-04-01")).unwrap().shows_hsm_platform());
        assert_eq!(ApiVersion::parse(None), Err(ServiceError::VersionMissing));
        assert_eq!(ApiVersion::parse(Some("7.9")), Err(ServiceError::VersionUnknown("7.9".into())));
    }
}
