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
    status, error = None, None
    try:
        status = run(command, warm, orders, hold)
    except BaseException as raised:
        error = raised
    if hold is not None and not hold.is_over:
        # Nobody has asked for it: nothing of it is to be noticed.
        os._exit(1)
    leave(status if error is None else status_of(error))


def status_of(error):
    """What Python ends with, having told what there is to tell."""
    if isinstance(error, SystemExit):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        # It ends by the signal.
        raise error
    sys.excepthook(type(error), error, error.__traceback__)
    return 1


def leave(status):
    """Ends as Python does, and as `multiprocessing` ends what it forks: without taking apart all that was
    imported, which is no more in a moment anyway. So what is only done when an object is taken apart, or
    by a library at `exit`, is not done; what was written is."""
    if not isinstance(status, int) and status is not None:
        print(status, file=sys.stderr)
        status = 1
    for last in (threading._shutdown, atexit._run_exitfuncs):
        try:
            last()
        except BaseException:
            sys.excepthook(*sys.exc_info())
    is_written = write_all()
    # Python's status for what could not be written.
    os._exit((status or 0) & 0xFF if is_written else 120)


def write_all():
    """Writes what files still keep to themselves; whether what was said could be written."""
    # `__class__` of a stand-in would be that of what it stands for.
    for file in [it for it in gc.get_objects() if issubclass(type(it), io.IOBase)]:
        flush(file)
    streams = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    is_written = all([flush(stream) for stream in streams if stream is not None])
    ctypes.CDLL(None).fflush(None)
    return is_written


def flush(file):
    try:
        file.flush()
    except ValueError:
        # It is closed.
        return True
    except Exception:
        return False
    return True


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
