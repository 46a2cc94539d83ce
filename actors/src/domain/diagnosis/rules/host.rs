//! What the machine lacks, or others have: ports, compilers, names, time.

use crate::domain::cause::Code::{HostIncomplete, LoadTimedOut, PortInUse, VllmNotFound};
use crate::domain::diagnosis::rule::Rule;

pub(in crate::domain::diagnosis) const RULES: &[Rule] = &[
    Rule::root(PortInUse, r"The server socket has failed to listen on any local network address\..*port: (?P<port>\d+)")
        .saying("port {port}, which vLLM's processes would meet at, is in use")
        .curing("end what an earlier vLLM left, or set VLLM_PORT or --master-port to another"),
    Rule::root(PortInUse, r"error while attempting to bind on address \('(?P<host>[^']+)', (?P<port>\d+)")
        .saying("port {port} of {host} is in use")
        // uvicorn is up before it listens.
        .fatal(),
    Rule::root(PortInUse, r"(?i)address already in use|EADDRINUSE|server socket has failed to listen"),
    // Python, torch's inductor, triton, FlashInfer, DeepGEMM.
    Rule::root(HostIncomplete, r"(?i)could not find nvcc|nvcc(?: was)? not found|nvcc: (?:command )?not found|CUDA_HOME environment variable is not set|CUDA_HOME is not set|No such file or directory: '\S*nvcc'")
        .saying("the CUDA toolkit (nvcc) is missing, and something is to be compiled")
        .curing("install the CUDA toolkit of the version that vLLM was built with, and set CUDA_HOME"),
    Rule::root(HostIncomplete, r"(?i)ninja is required|No such file or directory: '\S*ninja'|ninja: (?:command )?not found")
        .saying("ninja is missing, and something is to be compiled")
        .curing("install ninja (`pip install ninja`)"),
    Rule::root(HostIncomplete, r"Failed to find C compiler|Cannot find a working triton installation|InvalidCxxCompiler|No working C\+\+ compiler found|No such file or directory: '\S*(?:gcc|g\+\+|cc|c\+\+|clang)'|(?:gcc|g\+\+|cc1plus?): (?:command )?not found")
        .saying("there is no C compiler, and something is to be compiled")
        .curing("install gcc and g++ (Debian: build-essential), or add --enforce-eager to extra_args"),
    Rule::root(HostIncomplete, r"Python\.h: No such file")
        .saying("the headers of Python are missing, and something is to be compiled")
        .curing("install them (Debian: python3-dev)"),
    Rule::consequence(HostIncomplete, r"cannot find -l(?P<library>\w+)")
        .curing("install the library {library}, with what its development needs"),
    Rule::root(HostIncomplete, r"getpwuid\(\): uid not found: (?P<uid>\d+)|getpwuid\(\): uid not found")
        .saying("the user {uid} has no name on this machine")
        .curing("set USER, HOME and TORCHINDUCTOR_CACHE_DIR in env, or add the user {uid} to /etc/passwd"),
    Rule::root(HostIncomplete, r"version `(?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found")
        .saying("the C library is too old: {version} is wanted")
        .curing("use a newer distribution, or vLLM's container image"),
    Rule::root(HostIncomplete, r"(?P<library>lib[\w.+-]+\.so[.\d]*): cannot open shared object file")
        .saying("the library {library} is missing")
        .curing("install the package that has {library}"),
    Rule::root(HostIncomplete, r"\[Errno 24\] Too many open files")
        .saying("the limit of open files is reached")
        .curing("raise it (`ulimit -n`, LimitNOFILE= of systemd)"),
    // Python's `runpy`, and a shell.
    Rule::root(VllmNotFound, r"No module named (?:'vllm'|vllm)(?:\)|$)|No module named '?vllm\.entrypoints")
        .saying("the Python that was started has no vLLM")
        .curing("install it there (`pip install vllm`), or set vllm_binary to the `vllm` executable"),
    Rule::root(VllmNotFound, r"(?:^|[ :/])(?P<program>vllm|python[\d.]*): (?:command )?not found$")
        .saying("{program} was not found"),
    Rule::consequence(HostIncomplete, r"^ModuleNotFoundError: No module named '(?P<module>[^']+)'")
        .saying("the Python package {module} is missing")
        .curing("install {module} into vLLM's environment"),
    // vLLM's own deadlines: `v1/engine/core_client.py`, `v1/engine/core.py`.
    Rule::consequence(LoadTimedOut, r"Timed out waiting for engine(?:s| core processes) to (?:send initial message|start)|Did not receive response from front-end process within")
        .saying("the engine was not ready within vLLM's own deadline")
        .curing("raise VLLM_ENGINE_READY_TIMEOUT_S in env, or read the weights from a faster disk"),
    Rule::consequence(HostIncomplete, r"Command '\['\S*(?:ninja|gcc|cc|g\+\+|c\+\+|clang)'.* returned non-zero|fatal error: \S+\.h(?:pp)?: No such file|Ninja build failed|nvcc fatal")
        .saying("something was to be compiled, and could not be")
        .curing("see what the compiler says before the telling line, and install what it lacks"),
    Rule::consequence(HostIncomplete, r"PermissionError at |(?:PermissionError|InductorError): .*Permission denied: '/\.")
        .saying("a cache cannot be written")
        .curing("set HOME, or XDG_CACHE_HOME, VLLM_CACHE_ROOT and TRITON_CACHE_DIR, in env to directories that can be written"),
    Rule::consequence(HostIncomplete, r"has no attribute '?all_special_tokens_extended|ImportError: cannot import name|^ImportError: Please install |requires the following packages that were not found|requires the \w+ library but it was not found|'hf_transfer' package is not available|Numba needs NumPy")
        .saying("a Python package is missing, or of a version that vLLM does not go with")
        .curing("install vLLM anew into an environment of its own, with the versions that it asks for, and what the telling line names"),
];
