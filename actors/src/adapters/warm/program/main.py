def entry_point():
    """What the command `vllm` runs. A build for one platform may be known by two names."""
    found = list(importlib.metadata.entry_points(group="console_scripts", name="vllm"))
    if len({entry.value for entry in found}) != 1:
        raise SystemExit(f"{len(found)} packages say what the command vllm runs")
    return found[0]


def main():
    supervisor = Supervisor()
    told = os.environ.pop(TOLD, None)
    told = json.loads(told) if told else supervisor.hear()[0]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[:0] = told["path"]
    entitle("llm-warm", "llm-warm")
    entry = entry_point()
    warm = Warm(supervisor, Lessons(told["lessons"], entry, told["without"]), told)
    warm.begin_with(warm.lessons.preload)
    supervisor.say("hello", protocol=PROTOCOL, vllm=entry.dist.version)
    signs = SignsOfLife(supervisor)
    sys.meta_path.insert(0, signs)
    command = entry.load()
    sys.meta_path.remove(signs)
    why = warm.unfit()
    if why:
        raise SystemExit(f"once it is imported, {why}")
    try:
        warm.prepare()
        warm.serve()
    except Launch as launch:
        orders, hold = launch.args
    try:
        status = run(command, warm, orders, hold)
    except SystemExit as end:
        status = end.code
    finally:
        if hold is not None and not hold.is_over:
            # Nobody has asked for it: nothing of it is to be noticed.
            os._exit(1)
    leave(status)


def leave(status):
    """Ends as Python does, and as `multiprocessing` ends what it forks: without taking apart all that was
    imported, which is no more in a moment anyway."""
    if isinstance(status, int) or status is None:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        os._exit((status or 0) & 0xFF)
    sys.exit(status)


def run(command, warm, orders, hold):
    """Runs the command as if this were the process that was made for it."""
    forget()
    script = orders["words"][0]
    sys.argv = [script, *orders["words"][1:]]
    stand_in = types.ModuleType("__main__")
    stand_in.__file__ = script
    # Its globals are in use for as long as its functions run.
    stand_in.vllmd = sys.modules["__main__"]
    sys.modules["__main__"] = stand_in
    warm.lessons.leave()
    if orders["learn"]:
        warm.lessons.teach()
    try:
        if orders["engines"]:
            fork_engines()
    except Exception as error:
        print(f"vLLM forks no engine: {error!r}", file=sys.stderr)
    if hold is not None:
        hold.begin()
    return command()


main()
