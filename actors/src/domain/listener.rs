//! Who listens where vLLM is to listen.

use std::fmt;

/// What came of looking for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Nobody yet.
    Nobody,
    /// A process of the launch.
    Member,
    /// Somebody else, alone or besides.
    Stranger(ResourceHolder),
    /// It could not be found out, for this reason. That is neither nobody nor ours.
    Unknown(String),
}

/// A process that holds a port, or memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceHolder {
    /// Its number; `None` if we may not see it.
    pub pid: Option<u32>,
    /// Its command line, cut short; `None` if we may not see it.
    pub command: Option<String>,
    /// The user it runs as.
    pub user: String,
}

impl fmt::Display for ResourceHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, user } = self;
        match (pid, command) {
            (Some(pid), Some(command)) => write!(f, "`{command}` (pid {pid}, user {user})"),
            (Some(pid), None) => write!(f, "a process with pid {pid} of user {user}"),
            (None, _) => write!(f, "a process of user {user} that we may not see"),
        }
    }
}
