//! Why the cluster could not do something. None of these says that a command was refused: that is an outcome.

/// A failure of consensus as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Nothing happened: there is no leader, or no quorum, within the deadline. Safe to retry.
    #[error("the cluster is not available: {0}")]
    Unavailable(&'static str),
    /// The command may or may not have been carried out. Only an idempotent retry is safe.
    #[error("the outcome is unknown")]
    Unknown,
    /// A request that the cluster refuses, with the reason for an operator.
    #[error("{0}")]
    Refused(String),
    /// This node has stopped taking part (disk, corruption, a command of a newer release). It must be restarted.
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A store did not open, or log and state do not belong together.
    #[error("storage: {0}")]
    Storage(#[from] std::io::Error),
    /// openraft refused to start.
    #[error("consensus: {0}")]
    Consensus(String),
    /// A setting is out of range.
    #[error("configuration: {0}")]
    Config(String),
}
