# What others notice when it is done, of what Python tells of itself (PEP 578): what these begin with, ...
NOTICED = ("os.", "subprocess.", "socket.bind", "socket.connect", "socket.send", "_thread.", "tempfile.")

# ... but for these.
UNNOTICED = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv", "os.getxattr")

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
        except OSError:
            return False
        if word:
            self.read = json.loads(word)
            self.stands = True
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


class Hold:
    """Has this process wait for its orders before it does the first thing that others notice. Python asks
    it before such things; what is not Python's own comes behind one of them in every vLLM that is known:
    the first thing that a server does is to take its address."""

    def __init__(self, channel, lessons):
        self.channel = channel
        self.lessons = lessons
        self.read = {}
        self.is_over = False

    def withdraw(self, parent):
        """Leaves what this process would share with its parent, and lives no longer."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        show(RESERVE, f"{AHEAD}=..".encode(), is_room=True)
        entitle("llm-warm-ahead", "llm-warm-ahead")
        self.output = os.memfd_create("llm-warm-ahead")
        for target in (1, 2):
            os.dup2(self.output, target)

    def begin(self):
        start = multiprocessing.process.BaseProcess.start

        def held_start(process):
            self.wait()
            return start(process)

        # Python does not tell of a process that is started anew (`multiprocessing.util.spawnv_passfds`).
        multiprocessing.process.BaseProcess.start = held_start
        self.start = start
        sys.addaudithook(self.ask)

    def ask(self, event, details):
        if self.is_over:
            return
        if event == "open":
            path, _, flags = details
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.note(path)
                return
        elif not event.startswith(NOTICED) or event in UNNOTICED:
            return
        self.wait()

    def note(self, path):
        """The file as it was before it was read."""
        if isinstance(path, str) and not path.startswith(FLEETING):
            path = os.path.abspath(path)
            self.read.setdefault(path, Files.state_of(path))

    def wait(self):
        if self.is_over:
            return
        self.is_over = True
        multiprocessing.process.BaseProcess.start = self.start
        try:
            self.channel.send(json.dumps(self.read).encode())
            data, descriptors, _, _ = socket.recv_fds(self.channel, 1 << 20, 4)
        except OSError:
            os._exit(0)
        if not data:
            os._exit(0)
        self.channel.close()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
        log, channel, *cgroup = descriptors
        orders = json.loads(data)
        become(orders, log, socket.socket(fileno=channel), cgroup, AHEAD)
        self.tell()
        forget()
        if orders["learn"]:
            self.lessons.teach()

    def tell(self):
        """Has the log begin with what was written before there was one."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said = os.pread(self.output, os.fstat(self.output).st_size, 0)
        while said:
            said = said[os.write(1, said) :]
        os.close(self.output)
