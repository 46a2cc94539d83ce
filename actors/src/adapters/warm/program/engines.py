# How vLLM starts its engine and its workers (`envs.py`).
METHOD = "VLLM_WORKER_MULTIPROC_METHOD"

# What OpenMP reads when a program begins, and never again: how many threads, and on which processors.
# vLLM gives each worker on a CPU its own (`utils/ompmultiprocessing.py`), as plain lists of numbers.
THREADS = "OMP_NUM_THREADS"
PROCESSORS = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES")


def fork_engines():
    """Has vLLM fork its engine and its workers where its platform starts them anew, and that is known to
    do no harm: on a CPU. Its own reasons not to fork stand."""
    from vllm.platforms import current_platform

    if METHOD in os.environ or not current_platform.is_cpu():
        return
    from vllm.utils import system_utils

    original = system_utils.get_mp_context
    present = os.environ.get(PRELOAD, "")

    def get_mp_context():
        # What it is to begin with, it can only have by beginning.
        if os.environ.get(PRELOAD, "") == present:
            os.environ[METHOD] = "fork"
        return original()

    for name, module in list(sys.modules.items()):
        if name.startswith("vllm") and getattr(module, "get_mp_context", None) is original:
            module.get_mp_context = get_mp_context
    bind_workers()


def replace_kernels():
    """Has vLLM's platform replace its kernels here, once. Each worker looks through all that every module
    has for them (0.32, `triton_utils/dispatcher.py`), and finds the more to look through the more was
    imported ahead."""
    dispatcher = sys.modules.get("vllm.triton_utils.dispatcher")
    if dispatcher is None or METHOD in os.environ:
        return
    from vllm.platforms import current_platform

    replace = getattr(current_platform, "register_triton_kernel_overrides", None)
    if replace is None or not current_platform.is_cpu():
        return
    replace()
    # Nothing that is imported from here on holds what was replaced.
    type(current_platform).register_triton_kernel_overrides = classmethod(lambda platform: None)


def bind_workers():
    """Has what is forked heed the variables of OpenMP that it is given, as what begins with them does.
    Unheeded, each worker runs as many threads as there are processors, on all of them, and takes its
    memory from the node of the first."""
    present = {name: os.environ.get(name) for name in (THREADS, *PROCESSORS)}

    def bind():
        given = {name: value for name in present if (value := os.environ.get(name)) != present[name]}
        places = " ".join(given.get(name) or "" for name in PROCESSORS)
        processors = {int(number) for number in re.findall(r"\d+", places)}
        if processors:
            os.sched_setaffinity(0, processors)
        if given.get(THREADS):
            sys.modules["torch"].set_num_threads(int(given[THREADS]))

    os.register_at_fork(after_in_child=bind)
