//! Why the service failed: a code, what happened this time, what to do about it, and whether
//! trying again can help.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whether, and on what condition, trying again can cure a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// The same start would fail in the same way: never retried.
    Permanent,
    /// It may pass by itself: retried with backoff.
    Transient,
    /// Its precondition (a free port, free memory) may come true; until that can be proven, it is
    /// retried with backoff like a transient one.
    AfterCleanup,
}

impl RetryClass {
    /// The class's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::AfterCleanup => "after_cleanup",
        }
    }
}

/// The stable name of a kind of failure, `VLM-001` to `VLM-099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// VLM-001: No usable GPU (no driver, no device, or a vLLM built for another platform).
    GpuUnavailable = 1,
    /// VLM-002: The model does not exist on Hugging Face.
    ModelNotFound = 2,
    /// VLM-003: Hugging Face asks for authentication.
    AuthenticationRequired = 3,
    /// VLM-004: The model made no progress while loading.
    LoadTimedOut = 4,
    /// VLM-005: The port is in use by another process.
    PortInUse = 5,
    /// VLM-006: Not enough free GPU memory.
    InsufficientGpuMemory = 6,
    /// VLM-007: vLLM was not found.
    VllmNotFound = 7,
    /// VLM-008: The configuration is invalid.
    InvalidConfiguration = 8,
    /// VLM-009: The model is not complete in the local cache and the network is off.
    NotInLocalCache = 9,
    /// VLM-010: Hugging Face cannot be reached or is failing.
    HubUnreachable = 10,
    /// VLM-011: The model is gated and its terms have not been accepted.
    ModelGated = 11,
    /// VLM-012: The model id is invalid, or the path does not exist.
    InvalidModelId = 12,
    /// VLM-013: vLLM rejected its arguments.
    ArgumentsRejected = 13,
    /// VLM-014: This vLLM cannot run the model (architecture, custom code, quantisation or
    /// capability).
    ModelUnsupported = 14,
    /// VLM-015: Weights or configuration of the model are missing or corrupt.
    ModelFilesBroken = 15,
    /// VLM-016: vLLM's engine, a worker or its server died.
    EngineDied = 16,
    /// VLM-017: vLLM stopped answering though its process lives.
    EngineHung = 17,
    /// VLM-018: The restart limit is reached.
    RestartLimitReached = 18,
    /// VLM-019: The kernel killed vLLM for lack of memory.
    KilledForMemory = 19,
    /// VLM-020: The parallel size does not fit (attention heads, layers, or number of GPUs).
    ParallelSizeUnfit = 20,
    /// VLM-021: The KV cache is too small for the context length.
    KvCacheTooSmall = 21,
    /// VLM-022: A GPU fault (Xid, ECC, or lost from the bus).
    GpuFault = 22,
    /// VLM-023: Hugging Face limits the rate of requests.
    HubRateLimited = 23,
    /// VLM-024: The disk is full.
    DiskFull = 24,
    /// VLM-025: `/dev/shm` is too small.
    SharedMemoryTooSmall = 25,
    /// VLM-026: The GPUs cannot talk to each other (NCCL, RCCL, peer access, rendezvous).
    InterconnectFailed = 26,
    /// VLM-027: The host lacks what vLLM needs to run or to compile (a compiler, headers, the CUDA
    /// toolkit, a name for the user id).
    HostIncomplete = 27,
    /// VLM-099: vLLM ended for a reason that is not recognised.
    Unrecognised = 99,
}

use RetryClass::{AfterCleanup, Permanent, Transient};

/// One row a code: what it means, what to do, its retry class.
const TABLE: [(Code, &str, &str, RetryClass); 28] = [
    (
        Code::GpuUnavailable,
        "no usable GPU (no driver, no device, or a vLLM built for another platform)",
        "look at `nvidia-smi` or `rocm-smi`; install the driver, give the container the device, or install the vLLM build for this platform",
        Permanent,
    ),
    (
        Code::ModelNotFound,
        "the model does not exist on Hugging Face",
        "check the spelling of the model id at https://huggingface.co/models",
        Permanent,
    ),
    (
        Code::AuthenticationRequired,
        "Hugging Face asks for authentication",
        "set HF_TOKEN to a token from https://huggingface.co/settings/tokens that may read this model",
        Permanent,
    ),
    (
        Code::LoadTimedOut,
        "the model made no progress while loading",
        "look at the last lines of vLLM's log; if it is merely slow, raise lifecycle.model_load_timeout (or lifecycle.start_timeout before its first output)",
        Transient,
    ),
    (
        Code::PortInUse,
        "the port is in use by another process",
        "stop the process that holds the port, or choose another with `port`",
        AfterCleanup,
    ),
    (
        Code::InsufficientGpuMemory,
        "not enough free GPU memory",
        "free the GPU, lower gpu.memory_utilization, raise gpu.tensor_parallel_size, or take a smaller model",
        AfterCleanup,
    ),
    (
        Code::VllmNotFound,
        "vLLM was not found",
        "install it (`pip install vllm`), or set vllm_binary to the `vllm` executable",
        Permanent,
    ),
    (
        Code::InvalidConfiguration,
        "the configuration is invalid",
        "correct the named key; `vllmd config show` lists every value and where it came from",
        Permanent,
    ),
    (
        Code::NotInLocalCache,
        "the model is not complete in the local cache and the network is off",
        "download it first where there is a network (`hf download MODEL`)",
        Permanent,
    ),
    (
        Code::HubUnreachable,
        "Hugging Face cannot be reached or is failing",
        "check the network and https://status.huggingface.co; it is tried again",
        Transient,
    ),
    (
        Code::ModelGated,
        "the model is gated and its terms have not been accepted",
        "accept the terms on the model's page with the account that HF_TOKEN belongs to",
        Permanent,
    ),
    (
        Code::InvalidModelId,
        "the model id is invalid, or the path does not exist",
        "give `namespace/name` of Hugging Face, or an existing directory",
        Permanent,
    ),
    (
        Code::ArgumentsRejected,
        "vLLM rejected its arguments",
        "correct extra_args or env for the installed version of vLLM; its own message is in the log",
        Permanent,
    ),
    (
        Code::ModelUnsupported,
        "this vLLM cannot run the model (architecture, custom code, quantisation or capability)",
        "upgrade vLLM, or choose a model it supports",
        Permanent,
    ),
    (
        Code::ModelFilesBroken,
        "weights or configuration of the model are missing or corrupt",
        "download the model again, or repair the directory",
        Permanent,
    ),
    (
        Code::EngineDied,
        "vLLM's engine, a worker or its server died",
        "it is restarted under the policy; if it recurs, the last lines of the log tell why",
        Transient,
    ),
    (
        Code::EngineHung,
        "vLLM stopped answering though its process lives",
        "it is killed and restarted; if it recurs under load, raise lifecycle.max_consecutive_failures",
        Transient,
    ),
    (
        Code::RestartLimitReached,
        "the restart limit is reached",
        "cure the cause of the last crash (`last_error`, history), then start again: that clears the count",
        Permanent,
    ),
    (
        Code::KilledForMemory,
        "the kernel killed vLLM for lack of memory",
        "give the machine or container more memory, or lower what vLLM uses",
        Transient,
    ),
    (
        Code::ParallelSizeUnfit,
        "the parallel size does not fit (attention heads, layers, or number of GPUs)",
        "choose a gpu.tensor_parallel_size that divides the heads and is no more than the GPUs there are",
        Permanent,
    ),
    (
        Code::KvCacheTooSmall,
        "the KV cache is too small for the context length",
        "lower --max-model-len, or raise gpu.memory_utilization",
        Permanent,
    ),
    (
        Code::GpuFault,
        "a GPU fault (Xid, ECC, or lost from the bus)",
        "do what NVIDIA prescribes for the fault: restart, reset the GPU, or reboot",
        Permanent,
    ),
    (
        Code::HubRateLimited,
        "Hugging Face limits the rate of requests",
        "set HF_TOKEN for a higher limit; it is tried again",
        Transient,
    ),
    (
        Code::DiskFull,
        "the disk is full",
        "free space, or move state_dir, HF_HOME or VLLM_CACHE_ROOT; it is tried again",
        AfterCleanup,
    ),
    (
        Code::SharedMemoryTooSmall,
        "/dev/shm is too small",
        "raise it (a container's `--shm-size`, or `--ipc=host`)",
        Permanent,
    ),
    (
        Code::InterconnectFailed,
        "the GPUs cannot talk to each other (NCCL, RCCL, peer access, rendezvous)",
        "set NCCL_DEBUG=INFO in env to see more; check `nvidia-smi topo -m`, NCCL_SOCKET_IFNAME and NCCL_P2P_DISABLE=1; it is tried again",
        Transient,
    ),
    (
        Code::HostIncomplete,
        "the host lacks what vLLM needs to run or to compile",
        "install what the telling line names",
        Permanent,
    ),
    (
        Code::Unrecognised,
        "vLLM ended for a reason that is not recognised",
        "read the last lines of its log",
        Transient,
    ),
];

impl Code {
    /// Every code, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// What the code means, as a sentence fragment.
    pub fn summary(self) -> &'static str {
        self.row().1
    }

    /// What the operator can do.
    pub fn remedy(self) -> &'static str {
        self.row().2
    }

    /// Whether trying again can help. [`Code::GpuFault`] depends on the fault: a [`Cause`] that
    /// knows it says so, and until then it counts as permanent.
    pub fn retry_class(self) -> RetryClass {
        self.row().3
    }

    /// Whether this is a failure to load that `lifecycle.model_load_max_retries` bounds.
    pub fn is_load_failure(self) -> bool {
        matches!(self, Self::LoadTimedOut | Self::HubUnreachable | Self::HubRateLimited)
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, RetryClass) {
        // A test proves that every code has its row; 99 alone is out of line.
        let index = if self == Self::Unrecognised { TABLE.len() - 1 } else { self as usize - 1 };
        &TABLE[index]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VLM-{:03}", *self as u8)
    }
}

/// Why the service failed, this time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// The kind of failure.
    pub code: Code,
    /// What happened, with this occurrence's facts; a lowercase fragment.
    pub summary: String,
    /// Whether trying again can help.
    pub retry: RetryClass,
    /// The last lines of vLLM's output, oldest first, secrets masked; empty if there were none.
    pub last_lines: Vec<String>,
    /// What is known besides; apart, for a cause is in most errors, and seldom has it.
    pub particulars: Option<Box<Particulars>>,
}

/// What is known of a cause by what vLLM has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Particulars {
    /// What the operator can do this time, where more is known than of the code.
    pub remedy: Option<String>,
    /// The line that tells why, if one does.
    pub line: Option<TellingLine>,
    /// The file that all of the output is in, if there is any.
    pub log: Option<PathBuf>,
}

/// The line of a log that tells why vLLM failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingLine {
    /// Its number in the log, from 1.
    pub number: u64,
    /// What it says, without what stands before its message and without control characters, secrets
    /// masked.
    pub text: String,
}

impl Cause {
    /// A cause with the class of its code.
    pub fn new(code: Code, summary: impl Into<String>) -> Self {
        Self {
            code,
            summary: summary.into(),
            retry: code.retry_class(),
            last_lines: Vec::new(),
            particulars: None,
        }
    }

    /// The same cause with something better to do about it than what is true of its code.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        if remedy != self.code.remedy() {
            self.particulars().remedy = Some(remedy);
        }
        self
    }

    /// The same cause with the line that tells it.
    #[must_use]
    pub fn with_line(mut self, line: TellingLine) -> Self {
        self.particulars().line = Some(line);
        self
    }

    /// The same cause with the file that the output is in.
    #[must_use]
    pub fn with_log(mut self, log: Option<PathBuf>) -> Self {
        if log.is_some() {
            self.particulars().log = log;
        }
        self
    }

    fn particulars(&mut self) -> &mut Particulars {
        self.particulars.get_or_insert_default()
    }

    /// The line of vLLM's output that tells why, if one does.
    pub fn line(&self) -> Option<&TellingLine> {
        self.particulars.as_ref()?.line.as_ref()
    }

    /// The file that all of vLLM's output is in, if there is any.
    pub fn log(&self) -> Option<&Path> {
        self.particulars.as_ref()?.log.as_deref()
    }

    /// The same cause with the output that preceded it.
    #[must_use]
    pub fn with_last_lines(mut self, lines: Vec<String>) -> Self {
        self.last_lines = lines;
        self
    }

    /// What the operator can do.
    pub fn remedy(&self) -> &str {
        let known = self.particulars.as_ref().and_then(|it| it.remedy.as_deref());
        known.unwrap_or_else(|| self.code.remedy())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.summary)?;
        match self.line() {
            Some(line) if !self.summary.contains(&line.text) => write!(f, " ({})", line.text),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row_and_says_something() {
        for code in Code::all() {
            assert_eq!(code.row().0, code);
            assert!(!code.summary().is_empty() && !code.remedy().is_empty());
        }
    }

    #[test]
    fn codes_are_written_with_three_digits() {
        assert_eq!(Code::GpuUnavailable.to_string(), "VLM-001");
        assert_eq!(Code::Unrecognised.to_string(), "VLM-099");
    }
}
