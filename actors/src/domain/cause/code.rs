//! The kinds of failure.

use std::fmt;

use super::RetryClass::{self, AfterCleanup, Permanent, Transient};

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
        "check the network and https://status.huggingface.co",
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
        "its log tells why; if not, it was ended from outside (`dmesg` tells if by the kernel)",
        Transient,
    ),
    (
        Code::EngineHung,
        "vLLM stopped answering though its process lives",
        "if it recurs under load, raise lifecycle.max_consecutive_failures",
        Transient,
    ),
    (
        Code::RestartLimitReached,
        "the restart limit is reached",
        "cure the cause of the last crash (restarts.jsonl in the state directory has them all), then start again: that clears the count",
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
        "set HF_TOKEN for a higher limit",
        Transient,
    ),
    (
        Code::DiskFull,
        "the disk is full",
        "free space, or move state_dir, HF_HOME or VLLM_CACHE_ROOT",
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
        "set NCCL_DEBUG=INFO in env to see more; check `nvidia-smi topo -m`, NCCL_SOCKET_IFNAME and NCCL_P2P_DISABLE=1",
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

    /// Whether trying again can help. [`Code::GpuFault`] depends on the fault: a [`Cause`](super::Cause) that
    /// knows it says so, and until then it counts as permanent.
    pub fn retry_class(self) -> RetryClass {
        self.row().3
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows depends on more than the code.
    #[test]
    fn no_remedy_promises_what_follows() {
        for code in Code::all() {
            let remedy = code.remedy();
            for promise in ["it is tried again", "it is restarted", "it is retried", "is killed"] {
                assert!(!remedy.contains(promise), "{code}: {remedy}");
            }
        }
    }

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
