# When this began, by the clock that files are stamped with, which ticks a hundred times a second.
CLOCK = 10_000_000
BORN = time.time_ns() - CLOCK

# Seconds in which the processes of a launch tell what they have imported.
TELLING = 5.0

# What the runtime loader reads when a program begins, and never again (ld.so(8)).
PRELOAD = "LD_PRELOAD"

# Bytes of a datagram: far below what a socket holds (unix(7), `net.core.wmem_default`).
DATAGRAM = 32 * 1024


class Files:
    """The files that were imported, as they were then."""

    def __init__(self):
        self.seen = {}

    def note(self):
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path not in self.seen:
                self.seen[path] = self.state_of(path)
        for path in filter(None, sys.path):
            # A package is installed, upgraded and removed by changing this directory.
            self.seen.setdefault(path, self.state_of(path))
        return self.seen

    def changed(self):
        """One that is not as it was when it was imported, which is noted only afterwards."""
        for path, was in self.seen.items():
            state = self.state_of(path)
            if state != was or state is not None and state[-1] > BORN:
                return path
        return None

    @staticmethod
    def state_of(path):
        try:
            stat = os.stat(path)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns


class Lessons:
    """What launches have taught, in a file for each build of vLLM: which modules they import, and which
    libraries their engine and workers begin with."""

    def __init__(self, directory, entry, without):
        record = entry.dist.locate_file(entry.dist._path.name) if hasattr(entry.dist, "_path") else ""
        build = [entry.dist.version, sys.version, str(record), Files.state_of(record)]
        digest = hashlib.sha256(repr(build).encode()).hexdigest()[:16]
        self.path = os.path.join(directory, f"{digest}.json") if directory else None
        self.without = set(without)
        self.names, self.preload = self.read()
        # What the processes of a launch send, and what they wait for before they do.
        self.inbox, self.outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.word, self.silence = os.pipe()

    def read(self):
        try:
            with open(self.path) as file:
                kept = json.load(file)
            names = [name for name in kept["modules"] if is_name(name) and name not in self.without]
            preload = kept["preload"]
            return names, preload if can_be_preloaded(preload) else os.environ.get(PRELOAD, "")
        except (OSError, TypeError, ValueError, KeyError):
            # Nothing was learnt yet, or it is learnt anew.
            return [], os.environ.get(PRELOAD, "")

    def write(self):
        if not self.path:
            return
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            part = f"{self.path}.{os.getpid()}"
            with open(part, "w") as file:
                json.dump({"modules": self.names, "preload": self.preload}, file, indent=0)
            os.rename(part, self.path)
        except OSError as error:
            print(f"what was learnt cannot be kept: {error}", file=sys.stderr)

    def leave_out(self, name):
        self.without.add(name)
        self.names = [it for it in self.names if it != name]

    def end_before(self, name):
        self.names = self.names[: self.names.index(name)]

    def take(self, warm):
        """Has the processes of the launch tell what they have; whether there is anything new."""
        # Renewed first: a launch that is forked meanwhile has its own to wait for.
        word, silence = self.word, self.silence
        self.word, self.silence = os.pipe()
        os.close(silence)
        told = self.hear(warm)
        os.close(word)
        before = (set(self.names), self.preload)
        names = dict.fromkeys(self.names)
        for preload, *others in told:
            # That of an engine or a worker: vLLM sets it for those that it starts.
            if can_be_preloaded(preload):
                self.preload = preload
            names.update(dict.fromkeys(it for it in others if it not in self.without))
        self.names = list(names)
        return before != (set(self.names), self.preload)

    def hear(self, warm):
        """What each process has to tell, in lines, whoever was forked last coming last."""
        self.inbox.setblocking(True)
        parts = {}
        deadline = time.monotonic() + TELLING
        while True:
            left = deadline - time.monotonic()
            # Once somebody has told, the others are not long in coming.
            wait = max(min(left, 1.0) if parts else left, 0)
            spoken = spoken_of([self.inbox, warm.supervisor.socket], wait)
            if warm.supervisor.socket in spoken:
                warm.obey()
            if self.inbox in spoken:
                warm.supervisor.live()
                pid, _, text = self.inbox.recv(DATAGRAM * 2).partition(b"\n")
                parts.setdefault(int(pid), []).append(text)
            elif not spoken:
                break
        return [b"".join(parts[pid]).decode().rstrip("\n").split("\n") for pid in sorted(parts)]

    def leave(self):
        """What this process and its like have of it would keep others from hearing its end."""
        self.inbox.close()
        os.close(self.silence)

    def teach(self):
        """Has this process and those forked from it tell what they have imported, when asked."""

        def tell():
            os.read(self.word, 1)
            names = [name for name, it in list(sys.modules.items()) if is_importable(name, it)]
            text = "\n".join([os.environ.get(PRELOAD, ""), *names]).encode() + b"\n"
            try:
                for at in range(0, len(text), DATAGRAM):
                    self.outbox.send(b"%d\n%s" % (os.getpid(), text[at : at + DATAGRAM]))
            except OSError:
                # Whoever would have learnt it has ended.
                pass

        def begin():
            threading.Thread(target=tell, name="vllmd-learn", daemon=True).start()

        os.register_at_fork(after_in_child=begin)
        begin()


def is_name(name):
    return isinstance(name, str) and 0 < len(name) < 512 and name.isprintable()


def can_be_preloaded(libraries):
    """Whether these are libraries that are there, and not a part of something else (ld.so(8))."""
    if not isinstance(libraries, str) or "\0" in libraries:
        return False
    return all(os.path.isfile(it) for it in libraries.replace(":", " ").split())


def is_importable(name, module):
    spec = getattr(module, "__spec__", None)
    return getattr(spec, "name", None) == name and bool(spec.origin) and spec.has_location
