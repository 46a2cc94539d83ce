//! That nothing is left of a launch, as a proof. Not having been able to look is an answer of its
//! own, and no proof can be made of it.

use std::fmt;

use thiserror::Error;

/// Something could not be looked at, so whatever it would have shown may exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{looked_at}: {said}", match kind {
    ScanErrorKind::Refused | ScanErrorKind::Failed => "cannot look at ",
    ScanErrorKind::Undecided => "",
})]
pub struct ScanError {
    /// What was looked at: a path, or the name of a system call.
    pub looked_at: String,
    /// What the system said.
    pub said: String,
    /// What kept us from looking.
    pub kind: ScanErrorKind,
}

/// What keeps us from looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanErrorKind {
    /// We may not: it belongs to somebody else.
    Refused,
    /// It failed: no descriptor or memory was free, a disk is broken, a kernel is different.
    Failed,
    /// It was seen, and nothing shows whether it belongs to the launch.
    Undecided,
}

impl ScanError {
    /// What was looked at, and what the system said.
    pub fn new(looked_at: impl Into<String>, said: &impl fmt::Display) -> Self {
        let (looked_at, said) = (looked_at.into(), said.to_string());
        Self { looked_at, said, kind: ScanErrorKind::Failed }
    }

    /// The same, of what we may not look at.
    pub fn refused(looked_at: impl Into<String>, said: &impl fmt::Display) -> Self {
        Self { kind: ScanErrorKind::Refused, ..Self::new(looked_at, said) }
    }

    /// The same, of what was seen, and may belong or not: who it is, and why that cannot be told.
    pub fn undecided(looked_at: impl Into<String>, said: &impl fmt::Display) -> Self {
        Self { kind: ScanErrorKind::Undecided, ..Self::new(looked_at, said) }
    }
}

/// Something that was left of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// A process that lives.
    Process {
        /// Its number.
        pid: u32,
        /// Its name, as far as the kernel keeps it (15 bytes).
        name: String,
    },
    /// A segment of shared memory.
    Segment {
        /// Its path.
        name: String,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Segment { name } => write!(f, "shared memory {name}"),
        }
    }
}

/// Why it is not proven that nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// This was seen.
    Left(Vec<Leftover>),
    /// Not everything could be looked at.
    Unseen(ScanError),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(leftovers) => {
                let named: Vec<String> = leftovers.iter().map(Leftover::to_string).collect();
                write!(f, "{} left", named.join(", "))
            }
            Self::Unseen(error) => error.fmt(f),
        }
    }
}

/// That everything was looked at, and nothing was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof(());

impl Proof {
    /// What a look proves.
    ///
    /// # Errors
    ///
    /// The doubt that remains: something was there, or could not be looked at.
    pub fn of(look: Result<Vec<Leftover>, ScanError>) -> Result<Self, Doubt> {
        match look {
            Ok(leftovers) if leftovers.is_empty() => Ok(Self(())),
            Ok(leftovers) => Err(Doubt::Left(leftovers)),
            Err(error) => Err(Doubt::Unseen(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_look_that_saw_everything_and_found_nothing_is_a_proof() {
        assert!(Proof::of(Ok(Vec::new())).is_ok());
        let left = vec![Leftover::Process { pid: 7, name: "VLLM::Worker".to_owned() }];
        assert_eq!(Proof::of(Ok(left.clone())), Err(Doubt::Left(left)));
        let error = ScanError::new("/proc", &"Too many open files");
        assert_eq!(Proof::of(Err(error.clone())), Err(Doubt::Unseen(error)));
    }

    #[test]
    fn a_doubt_names_what_is_left_or_what_the_system_said() {
        let left = vec![
            Leftover::Process { pid: 7, name: "python".to_owned() },
            Leftover::Segment { name: "/dev/shm/psm_1".to_owned() },
        ];
        let said = Doubt::Left(left).to_string();
        assert_eq!(said, "process 7 (python), shared memory /dev/shm/psm_1 left");
        let unseen = Doubt::Unseen(ScanError::new("/proc", &"Too many open files"));
        assert_eq!(unseen.to_string(), "cannot look at /proc: Too many open files");
        let undecided = ScanError::undecided("process 7 (sleep)", &"nobody knows whose it is");
        assert_eq!(undecided.to_string(), "process 7 (sleep): nobody knows whose it is");
    }
}
