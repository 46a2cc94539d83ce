# What makes room for the marks of a launch, and what its name is in one that is launched ahead.
RESERVE = "VLLMD_RESERVE"
AHEAD = "VLLMD_AHEAD"


def become(orders, log, channel, cgroup, reserve=RESERVE):
    """Makes this process what a cold launch would be, and waits for the word to begin."""
    try:
        os.setsid()
        for descriptor in cgroup:
            # Refused, it is owned by session and marker.
            try:
                os.write(descriptor, b"0")
            except OSError:
                pass
        null = os.open("/dev/null", os.O_RDONLY)
        for target, source in enumerate((null, log, log)):
            os.dup2(source, target)
        for descriptor in (null, log, *cgroup):
            os.close(descriptor)
        mark(orders["marks"], reserve)
        os.environ.pop(RESERVE, None)
        os.environ.update(orders["marks"])
        os.environ.update(orders["environment"])
        words = orders["words"]
        entitle(" ".join(words), os.path.basename(words[0]))
        channel.send(json.dumps({"say": "standing", "pid": os.getpid(), "ahead": reserve == AHEAD}).encode())
        if not channel.recv(64):
            os._exit(0)
        channel.close()
    except (Refused, OSError) as error:
        try:
            channel.send(json.dumps({"say": "refused", "why": str(error)}).encode())
        finally:
            os._exit(0)


def entitle(title, name):
    """Has ps(1) show this as the command line, and as the name."""
    try:
        import setproctitle
    except ImportError:
        # vLLM gives its processes no titles either.
        return
    setproctitle.setproctitle(title)
    with open("/proc/self/comm", "w") as comm:
        comm.write(name[:15])


def mark(marks, reserve):
    """Has the environment that others see in /proc carry these, in the place of this."""
    text = b"\0".join(os.fsencode(f"{name}={value}") for name, value in marks.items())
    show(reserve, text)


def show(name, text, rest=b"\0"):
    """Writes this over a variable that others see, and over what is left of it as often as there is room."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b") ")[2].split()
    # Fields 50 and 51 of proc_pid_stat(5), of which the third comes first here.
    start, end = int(fields[47]), int(fields[48])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        shown = memory.read(end - start)
        at = shown.find(f"{name}=".encode())
        room = shown.find(b"\0", at) - at
        if at < 0 or room < len(text):
            raise Refused("there is no room for the marks of a launch")
        memory.seek(start + at)
        memory.write(text.ljust(room, rest))
    with open("/proc/self/environ", "rb") as environment:
        if text not in environment.read():
            raise Refused("the marks of a launch are not seen in /proc")


def forget():
    """Undoes what this process shares with its parent and would have of its own otherwise."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None
    random = getattr(sys.modules.get("numpy"), "random", None)
    if random is not None:
        random.seed()
