//! GPUs that are not there, are broken, or do not hear each other.

use crate::domain::cause::Code::{EngineDied, GpuFault, GpuUnavailable, InterconnectFailed};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    // vLLM, `config/device.py`.
    Rule::root(GpuUnavailable, r"Failed to infer device type|No platform detected, vLLM is running on UnspecifiedPlatform|Device string must not be empty"),
    // torch, `cuda/__init__.py`.
    Rule::root(GpuUnavailable, r"(?i)Found no NVIDIA driver|No CUDA GPUs are available|no NVIDIA GPU detected|No HIP GPUs are available|CUDA unknown error - this may be due to|Unexpected error from cudaGetDeviceCount|CUDA driver error: system not yet initialized|(?:CUDA|HIP) error: (?:no (?:CUDA|ROCm)-capable device is detected|CUDA-capable device\(s\) is/are busy or unavailable|invalid device function)|Torch not compiled with CUDA enabled|CUDA_VISIBLE_DEVICES is set to empty string|base 10: '(?:MIG|GPU)-|Failed to initialize NVML|NVML_SUCCESS ==|nvidia-container-cli:"),
    Rule::root(GpuUnavailable, r"(?i)NVIDIA driver on your system is too old|CUDA driver version is insufficient|system has unsupported display driver / cuda driver combination|Error 80[0-4]: |Driver/library version mismatch|forward compatibility was attempted on non supported HW")
        .saying("the NVIDIA driver and the CUDA that vLLM was built with do not go together")
        .curing("upgrade the host's driver, or install the vLLM build for its CUDA version; in a container, do not mount another libcuda over the host's"),
    Rule::root(GpuUnavailable, r"NVMLError_(?:LibraryNotFound|DriverNotLoaded|LibRmVersionMismatch|NoPermission|Unknown|Uninitialized|NotSupported|InvalidArgument|NotFound)|NVMLError: |NVML Shared Library Not Found"),
    Rule::root(GpuUnavailable, r"(?P<library>lib(?:cuda|cudart|cublas\w*|cudnn\w*|cusparse\w*|nvrtc|nvToolsExt|nccl|amdhip64|hsa-runtime64|rocm\w*)\.so[.\d]*): cannot open shared object file")
        .saying("{library} is missing: this vLLM was built for another CUDA or ROCm than is installed")
        .curing("install the vLLM build for the CUDA or ROCm that is there, or the libraries that it wants"),
    Rule::root(GpuUnavailable, r"no kernel image is available for execution on the device|ptxas fatal\s+: Value 'sm_|PTX was compiled with an unsupported toolchain|the provided PTX was compiled")
        .saying("this vLLM has no code for this kind of GPU")
        .curing("install a vLLM that was built for the GPU's compute capability"),
    // Faults of the hardware. The driver, in the kernel's log; torch; NVML.
    Rule::witness(GpuFault, r"NVRM: Xid \([^)]*\): (?P<number>\d+)")
        .saying("the driver reports Xid {number}")
        .fatal(),
    Rule::root(GpuFault, r"(?i)uncorrectable ECC error|GPU has fallen off the bus|GPU is lost|NVMLError_GpuIsLost|Invalid access of peer GPU memory over nvlink|Unable to determine the device handle for (?:GPU|gpu)").fatal(),
    Rule::root(GpuFault, r"CUDA error: (?:uncorrectable NVLink|hardware stack error)").fatal(),
    // Faults of a program on it: it is started anew.
    Rule::root(EngineDied, r"(?:CUDA|HIP) error: (?P<what>an illegal memory access was encountered|device-side assert triggered|unspecified launch failure|unspecified launch error|misaligned address|an illegal instruction was encountered|invalid program counter|the launch timed out and was terminated)")
        .saying("the engine died of a GPU error: {what}")
        .curing("if it recurs, upgrade vLLM, or try --enforce-eager or another attention backend in extra_args")
        .lasting(),
    Rule::root(EngineDied, r"CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)|CUDNN_STATUS_\w+|CUBLAS_STATUS_(?:INVALID_VALUE|NOT_SUPPORTED)|Triton Error \[(?:CUDA|HIP)\]: an illegal|Memory access fault by GPU|HW Exception by GPU|CUDA error: unknown error").lasting(),
    // NCCL, RCCL, Gloo; `device_communicators/pynccl_wrapper.py`.
    Rule::consequence(InterconnectFailed, r"NCCL error|RCCL error|nccl(?:System|Internal|UnhandledCuda|Remote|InvalidUsage)Error|unhandled (?:cuda|system) error|DistBackendError").lasting(),
    Rule::root(InterconnectFailed, r"Watchdog caught collective operation timeout|Some NCCL operations have failed or timed out|\[Rank \d+\] Timeout at NCCL work").fatal(),
    Rule::root(InterconnectFailed, r"Gloo connectFullMesh failed|peer access is not supported between these two devices|Timed out (?:after \d+ seconds )?waiting for clients|DistStoreError|connect\(\) timed out.*rendezvous|The client socket has (?:failed to connect to any network address|timed out after)|custom_all_reduce\.cuh:\d+ '|Unable to find address for").lasting(),
    Rule::consequence(InterconnectFailed, r"DistNetworkError|gai error"),
    // Built for another torch, or another ROCm, than is installed.
    Rule::root(GpuUnavailable, r"undefined symbol: |'_OpNamespace' '\w+' object has no attribute|operator torchvision::nms does not exist|No module named 'vllm\._\w+'")
        .saying("vLLM's own code does not go with the torch that is installed")
        .curing("install vLLM anew into an environment of its own, with the torch that it asks for"),
];
