# What others notice when it is done, and where Python's own library finds it.
NOTICED = {
    "os": (
        *("fork", "forkpty", "execv", "execve", "posix_spawn", "posix_spawnp", "system"),
        *("mkdir", "mkfifo", "link", "symlink", "rename", "replace", "remove", "unlink", "rmdir"),
        *("chmod", "chown", "truncate", "kill", "killpg", "mknod", "setxattr", "utime"),
    ),
    "_thread": ("start_new_thread", "start_joinable_thread"),
    "_posixsubprocess": ("fork_exec",),
    "subprocess": ("_fork_exec",),
    "threading": ("_start_new_thread", "_start_joinable_thread"),
    # They stay in /dev/shm when this process is ended.
    "_multiprocessing": ("SemLock",),
    "_posixshmem": ("shm_open",),
    # Which directory it is, is another matter for each launch.
    "tempfile": ("_candidate_tempdir_list",),
}
NOTICED_OF_SOCKETS = ("bind", "connect", "connect_ex", "sendto", "sendmsg")

# Where shared memory is, which libraries make by calls that nobody can stand before.
SHARED = "/dev/shm/"

# Where files are that are never the same.
FLEETING = ("/proc/", "/sys/", "/dev/")

# prctl(2): the signal that comes when the parent ends.
PR_SET_PDEATHSIG = 1


class Ahead:
    """A process that is launched ahead of the order, by whoever forked it."""

    def __init__(self, pid, channel, orders):
        self.pid = pid
        self.channel = channel
        self.orders = orders
        self.stands = False
        # The files that it has read, as they were then.
        self.read = {}

    def hear(self):
        """Whether it stands ready, or will."""
        try:
            word = self.channel.recv(1 << 20)
            if word:
                self.read = json.loads(word)
                self.stands = True
        except (OSError, ValueError):
            return False
        return bool(word)

    def suits(self, orders):
        """Whether it has done what it would do by these orders, and would do again."""
        is_like = all(self.orders[name] == orders[name] for name in ("words", "engines"))
        states = [(was and tuple(was), Files.state_of(path)) for path, was in self.read.items()]
        return is_like and all(was == now for was, now in states)

    def go(self, orders, descriptors):
        """Whether it takes these orders."""
        try:
            socket.send_fds(self.channel, [json.dumps(orders).encode()], descriptors)
        except OSError:
            return False
        return True

    def end(self):
        """It is as if it had never been."""
        self.channel.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Held:
    """A function of C that something stands before. Whoever keeps it keeps what looks like it: it is no
    method of a class that it is kept in, equals it, and is pickled as it."""

    def __init__(self, held, original):
        self.held = held
        self.original = original

    def __call__(self, *words, **named):
        return self.held(*words, **named)

    def __getattr__(self, name):
        return getattr(self.original, name)

    def __eq__(self, other):
        return self.original == getattr(other, "original", other)

    def __hash__(self):
        return hash(self.original)

    def __reduce__(self):
        return operator.getitem, ((self.original,), 0)


class Hold:
    """Has this process wait for its orders before it does the first thing that others notice. Until then
    it stands in the way of what does such things in Python's own library. The first of them that a server
    does is to take its address. (Hooks as of PEP 578 would see more, and slow it down for ever.)"""

    def __init__(self, channel, warm):
        self.channel = channel
        self.lessons = warm.lessons
        self.known = warm.files.seen
        self.began = time.time_ns() - CLOCK
        self.read = {}
        self.replaced = []
        self.is_over = False

    def withdraw(self, parent):
        """Leaves what this process would share with its parent, and lives no longer."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        show(RESERVE, f"{AHEAD}=".encode(), b".")
        # Whoever copies the environment now is to have nothing of ours.
        del os.environ[RESERVE]
        entitle("llm-warm-ahead", "llm-warm-ahead")
        # Not by `os`, which lacks it where Python was built with an old library.
        self.output = ctypes.CDLL(None).memfd_create(b"llm-warm-ahead", 0)
        if self.output < 0:
            raise Refused("there is nowhere to write")
        for target in (1, 2):
            os.dup2(self.output, target)

    def begin(self):
        self.tasks = len(os.listdir("/proc/self/task"))
        # All of them first: some take from others what they would find replaced.
        modules = [importlib.import_module(name) for name in NOTICED]
        for module, names in zip(modules, NOTICED.values()):
            for name in names:
                self.stand_before(module, name)
        for name in NOTICED_OF_SOCKETS:
            self.stand_before(socket.socket, name)
        self.stand_before(builtins, "open", self.opens)
        self.stand_before(io, "open", self.opens)
        self.stand_before(os, "open", self.opens_descriptor)

    def stand_before(self, owner, name, ask=None):
        original = getattr(owner, name, None)
        if original is None:
            return

        def held(*words, **named):
            if not self.is_over:
                (ask or self.wait_for)(*words, **named)
            return original(*words, **named)

        if not isinstance(owner, type):
            held = Held(held, original)
        self.replaced.append((owner, name, held, vars(owner).get(name)))
        setattr(owner, name, held)

    def stand_aside(self):
        for owner, name, held, before in self.replaced:
            if vars(owner).get(name) is not held:
                continue
            if before is None:
                # It was the class's it is derived from.
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    def wait_for(self, *words, **named):
        self.wait()

    def opens(self, file, mode="r", *words, **named):
        if set(mode) & set("wax+"):
            self.wait()
        else:
            self.note(file)

    def opens_descriptor(self, path, flags, *words, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.wait()
        else:
            self.note(path)

    def note(self, path):
        """The file as it was before it was read."""
        if not isinstance(path, int):
            path = os.path.abspath(os.fsdecode(path))
            if path.startswith(SHARED) or not path.startswith(FLEETING):
                self.read.setdefault(path, Files.state_of(path))

    def wait(self):
        self.is_over = True
        self.stand_aside()
        # Nobody has a reason to send one now; what vLLM would make of it is nobody's.
        heeded = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in heeded:
                signal.signal(number, signal.SIG_DFL)
            orders, descriptors = self.hear()
            for number, heed in heeded.items():
                signal.signal(number, heed)
        except BaseException:
            os._exit(0)
        log, channel, *cgroup = descriptors
        become(orders, log, socket.socket(fileno=channel), cgroup, AHEAD)
        self.tell()
        if orders["learn"]:
            self.lessons.teach()

    def hear(self):
        for path, state in Files().note().items():
            if path not in self.known:
                if state is not None and state[-1] > self.began:
                    raise Refused(f"{path} has changed since it was imported")
                self.read.setdefault(path, state)
        # What was done behind the back of Python's library.
        tasks = os.listdir("/proc/self/task")
        children = content_of(f"/proc/self/task/{os.getpid()}/children")
        is_shared = SHARED in content_of("/proc/self/maps")
        if self.tasks < len(tasks) or children or is_shared or open_device():
            raise Refused("it has done what others notice")
        self.channel.send(json.dumps(self.read).encode())
        data, descriptors, _, _ = socket.recv_fds(self.channel, 1 << 20, 4)
        orders = json.loads(data)
        self.channel.close()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
        return orders, descriptors

    def tell(self):
        """Has the log begin with what was written before there was one."""
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            said = os.pread(self.output, os.fstat(self.output).st_size, 0)
            while said:
                said = said[os.write(1, said) :]
        except OSError:
            # What is written to a full disk is lost, as for any other launch.
            pass
        os.close(self.output)
