//! There is not enough of it: on the GPU, of the machine, in `/dev/shm`, on the disk.

use crate::domain::cause::Code::{
    DiskFull, InsufficientGpuMemory, KilledForMemory, KvCacheTooSmall, SharedMemoryTooSmall,
};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // `v1/core/kv_cache_utils.py`, 0.8 to 0.33.
    Rule::root(KvCacheTooSmall, r"max seq len \((?P<wanted>\d+)\), \(?(?P<needed>[\d.]+) GiB KV cache is needed.*available KV cache memory \((?P<free>[\d.]+) GiB\).*estimated maximum model length is (?P<fits>\d+)")
        .saying("a context of {wanted} tokens needs {needed} GiB of KV cache, and {free} GiB are there: {fits} tokens fit")
        .curing("set --max-model-len to {fits} or less in extra_args, or raise gpu.memory_utilization"),
    Rule::root(KvCacheTooSmall, r"max seq len \((?P<wanted>\d+)\), \(?(?P<needed>[\d.]+) GiB KV cache is needed.*available KV cache memory \((?P<free>[\d.]+) GiB\)")
        .saying("a context of {wanted} tokens needs {needed} GiB of KV cache, and {free} GiB are there")
        .curing("lower --max-model-len in extra_args, or raise gpu.memory_utilization"),
    // The engine of before, `worker/worker.py`.
    Rule::root(KvCacheTooSmall, r"max seq len \((?P<wanted>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache \((?P<fits>\d+)\)")
        .saying("a context of {wanted} tokens does not fit into the KV cache: {fits} tokens do")
        .curing("set --max-model-len to {fits} or less in extra_args, or raise gpu.memory_utilization"),
    Rule::root(KvCacheTooSmall, r"No available memory for the cache blocks")
        .saying("the weights leave no memory for a KV cache")
        .curing("raise gpu.memory_utilization, lower --max-model-len, or take a smaller model"),
    // `v1/worker/utils.py`, 0.8 to 0.33; without a device before 0.10.
    Rule::root(InsufficientGpuMemory, r"Free memory on device (?P<device>\S+ )?\((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less than desired GPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)")
        .saying("{wanted} GiB of GPU memory are wanted, and {free} of {all} GiB are free")
        .curing("see with nvidia-smi who holds the rest (an engine that an earlier vLLM left?), or lower gpu.memory_utilization ({share})"),
    Rule::root(InsufficientGpuMemory, r"Free memory on device .*is less than desired GPU memory utilization"),
    Rule::root(InsufficientGpuMemory, r"Failed to load model - not enough GPU memory")
        .curing("raise gpu.tensor_parallel_size, or take a smaller or quantised model"),
    Rule::root(InsufficientGpuMemory, r"out of memory occurred when warming up (?P<what>\w+) with (?P<count>\d+) dummy requests")
        .saying("weights and KV cache fit, warming up the {what} with {count} requests does not")
        .curing("lower --max-num-seqs (below {count}) in extra_args, or gpu.memory_utilization"),
    Rule::root(InsufficientGpuMemory, r"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate (?P<wanted>[\d.]+ \w+)\. GPU (?P<gpu>\d+) has a total capacity of (?P<all>[\d.]+ \w+) of which (?P<free>[\d.]+ \w+) is free")
        .saying("GPU {gpu} has {free} of {all} free, and {wanted} more were wanted")
        .lasting(),
    Rule::root(InsufficientGpuMemory, r"out of memory\. Tried to allocate|(?:CUDA|HIP|XPU) out of memory|(?:CUDA|HIP) (?:driver )?error: out of memory|Error in memory profiling\.|\bcudaErrorMemoryAllocation\b|CUBLAS_STATUS_ALLOC_FAILED|^(?:\w+\.)*OutOfMemoryError\b").lasting(),
    // The kernel, a container's runtime, Kubernetes.
    Rule::witness(KilledForMemory, r#"Reason:\s+OOMKilled|"OOMKilled": ?true|"reason": ?"OOMKilled"|^OOMKilled|oom-kill:|Out of memory: Killed process|Memory cgroup out of memory|oom_reaper|Killed signal terminated program|exit code 137"#)
        .saying("the kernel killed vLLM, or one of its processes, for lack of memory")
        .fatal(),
    Rule::root(KilledForMemory, r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|std::bad_alloc|^MemoryError\b|Cannot allocate memory")
        .saying("the machine has no memory left for vLLM")
        .lasting(),
    Rule::root(SharedMemoryTooSmall, r"Insufficient space in /dev/shm|Error while creating shared memory segment /dev/shm|insufficient shared memory \(shm\)|No space left on device.*(?:/dev/shm|'/psm_)|/dev/shm.*No space left on device|for file </torch_|to file </torch_|shared memory\(shm\) for file|Unexpected bus error encountered in worker").lasting(),
    Rule::consequence(SharedMemoryTooSmall, r"^(?:Fatal Python error: )?Bus error").lasting(),
    Rule::root(DiskFull, r"No space left on device|\[Errno 28\]|\(os error 28\)|Disk quota exceeded|\[Errno 122\]").lasting(),
    Rule::root(KvCacheTooSmall, r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks \((?P<fits>\d+)\)")
        .saying("there is room for the states of {fits} requests at a time")
        .curing("set --max-num-seqs to {fits} or less in extra_args, or raise gpu.memory_utilization"),
];
