//! The configuration of a cluster's node: one TOML file, one typed tree.
//!
//! [`fields::FIELDS`] is the one place that knows the fields: name, default, unit and consequence of each. Reading, the
//! refusal of unknown fields and the text of `claviger config default` come from it. [`check`] collects all problems,
//! each under the path of its field, for nobody likes to mend a file one error at a time; it looks at the named files
//! too, so that a configuration that passes starts.
//!
//! No secret is in the file itself, only paths to secrets, so it may be shown, copied and kept under version control.

mod fields;
mod files;
mod reader;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use fields::render_default;
pub(crate) use files::identity_header;
pub(crate) use reader::{shown, text, LEVELS};
pub(crate) use tree::{AuthorityFile, Config, LogFormat, ManagedIdentitySection};

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use reader::Reader;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The field's path, as in `api.listen`, or a line of the file.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Reads and checks a configuration and the files that it names. Relative paths are relative to `base_dir`, which is
/// the directory of the configuration file.
pub(crate) fn check(text: &str, base_dir: &Path) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(text, base_dir).map_err(|problem| vec![problem])?;
    let config = reader.config();
    reader.check_files(SystemTime::now());
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}
