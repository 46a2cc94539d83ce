# Pools and clients whose threads do their work unseen, and are missed after a fork. NVML has a thread
# too (`cuda…`, driver 580), and is none of them: what was forked has used CUDA.
UNFIT_THREADS = ("ZMQbg", "grpc", "tokio", "ray")

# Opened when a device is initialised. Those of NVIDIA are opened by NVML already: CUDA is asked.
DEVICES = ("/dev/kfd", "/dev/dri/renderD", "/dev/accel")

# What CUDA answers before `cuInit` was called (CUDA Driver API, `CUDA_ERROR_NOT_INITIALIZED`).
NOT_INITIALIZED = 3


# Before, `pathlib` had of its own what is to be stood before.
OLDEST_AHEAD = (3, 11)


class Warm:
    """This process: what it has imported, and whom it has forked."""

    def __init__(self, supervisor, lessons, told):
        self.supervisor = supervisor
        self.lessons = lessons
        self.told = told
        self.seconds = told["seconds"]
        self.files = Files()
        self.launched = set(told.get("launched", ()))
        self.lesson = None
        # What is to be launched ahead, and what was.
        self.next = told.get("next")
        self.ahead = None

    def prepare(self):
        """Imports what was learnt, each module within a limit. Orders are heard in between."""
        signs = SignsOfLife(self.supervisor)
        sys.meta_path.insert(0, signs)
        signal.signal(signal.SIGALRM, self.too_long)
        try:
            for name in list(self.lessons.names):
                # A launch does not wait for more than one.
                while self.supervisor.has_spoken():
                    self.obey()
                if name not in sys.modules:
                    self.import_one(name)
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            sys.meta_path.remove(signs)
        try:
            replace_kernels()
        except Exception as error:
            print(f"kernels are replaced by each worker: {error!r}", file=sys.stderr)
        self.files.note()
        self.lessons.write()
        gc.collect()
        # Whoever looks through all of it for garbage copies all of it.
        gc.freeze()
        self.supervisor.say("ready", modules=len(sys.modules))

    def import_one(self, name):
        # Said before: if it hangs for good, or kills us, the supervisor knows who it was.
        self.supervisor.say("importing", module=name)
        try:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
            importlib.import_module(name)
            why = None
        except TookTooLong:
            why = f"it takes more than {self.seconds} s"
        except ModuleNotFoundError as error:
            why = str(error)
            if f"{name}.".startswith(f"{error.name}."):
                # Nothing of it was run: it was found elsewhere than it is looked for here.
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.lessons.leave_out(name)
                return
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        # What was imported in part may be registered in part, and could not be imported anew.
        harm = why or self.unfit()
        if harm:
            self.supervisor.say("unimportable", module=name, why=harm[:500])
            # The next one does without, and at the third time without all that would have followed: what
            # does it may be behind each of them.
            if len(self.told["without"]) > 1:
                self.lessons.end_before(name)
            self.lessons.leave_out(name)
            self.lessons.write()
            print(f"once {name} is imported, {harm}", file=sys.stderr)
            os._exit(0)

    @staticmethod
    def too_long(number, frame):
        raise TookTooLong

    def unfit(self):
        """Why this process cannot be forked; None if it can."""
        main = threading.main_thread()
        others = [thread.name for thread in threading.enumerate() if thread is not main]
        if others:
            return f"it runs the thread {others[0]}"
        for task in os.listdir("/proc/self/task"):
            name = content_of(f"/proc/self/task/{task}/comm").strip()
            if name.startswith(UNFIT_THREADS):
                return f"it runs the thread {name}"
            children = content_of(f"/proc/self/task/{task}/children").split()
            others = [pid for pid in children if int(pid) not in self.launched]
            if others:
                return f"it has started process {others[0]}"
        return open_device()

    def serve(self):
        """Does as it is told, for ever. In what is forked it ends by `Launch`."""
        while True:
            ahead = [self.ahead.channel] if self.ahead else []
            is_busy = self.lesson is not None or self.next is not None
            spoken = spoken_of([self.supervisor.socket, *ahead], 0 if is_busy else -1)
            if self.ahead and self.ahead.channel in spoken and not self.ahead.hear():
                self.give_up_ahead()
            if self.supervisor.socket in spoken:
                self.obey()
            if self.lesson is not None:
                self.learn()
            if self.next is not None:
                self.launch_ahead()

    def obey(self):
        orders, descriptors = self.supervisor.hear()
        what = orders["do"]
        if what == "launch":
            self.launch(orders, descriptors)
        elif what == "reap":
            self.reap(orders["pid"])
        elif what == "learn":
            self.lesson = orders["model"]
        elif what == "ahead":
            self.next = orders if sys.version_info >= OLDEST_AHEAD else None

    def learn(self):
        model, self.lesson = self.lesson, None
        # It waits for the word of the lesson before, and would have to import by itself what is now.
        self.give_up_ahead()
        is_news = self.lessons.take(self)
        self.supervisor.say("learnt", model=model, news=is_news)
        if not is_news:
            return
        self.lessons.write()
        self.begin_with(self.lessons.preload)
        self.prepare()

    def begin_with(self, preload):
        """Begins anew where that takes other libraries from the beginning; it stays this process."""
        # Something of this Python takes it away again, where it was told to begin so already.
        if preload in (os.environ.get(PRELOAD, ""), self.told.get("preload")):
            return
        self.supervisor.say("anew")
        told = {**self.told, "launched": list(self.launched), "preload": preload, "next": self.next}
        os.environ.update({PRELOAD: preload, TOLD: json.dumps(told)})
        os.dup2(self.supervisor.socket.fileno(), 0)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def reap(self, pid):
        if pid in self.launched and os.waitpid(pid, os.WNOHANG)[0] == pid:
            self.launched.discard(pid)

    def launch(self, orders, descriptors):
        log, channel, *cgroup = descriptors
        channel = socket.socket(fileno=channel)
        pid, self.next = None, None
        try:
            self.check()
            if self.goes_ahead(orders, descriptors):
                return
            pid = os.fork()
        except (Refused, OSError) as error:
            channel.send(json.dumps({"say": "refused", "why": str(error)}).encode())
        finally:
            if pid != 0:
                for descriptor in (log, *cgroup):
                    os.close(descriptor)
                channel.close()
        if pid == 0:
            self.supervisor.socket.close()
            become(orders, log, channel, cgroup)
            raise Launch(orders, None)
        if pid:
            self.launched.add(pid)

    def launch_ahead(self):
        """Forks one for a launch that is yet to be ordered. It does what is of no consequence, and waits."""
        orders, self.next = self.next, None
        self.give_up_ahead()
        try:
            self.check()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            parent, pid = os.getpid(), os.fork()
        except (Refused, OSError) as error:
            print(f"nothing is launched ahead: {error}", file=sys.stderr)
            return
        if pid == 0:
            self.supervisor.socket.close()
            ours.close()
            try:
                hold = Hold(theirs, self)
                hold.withdraw(parent)
            except BaseException:
                # Whatever else ends a process is the business of the one that it was forked from.
                os._exit(0)
            raise Launch({**orders, "learn": False}, hold)
        theirs.close()
        self.launched.add(pid)
        self.ahead = Ahead(pid, ours, orders)

    def goes_ahead(self, orders, descriptors):
        """Whether the launch is that which was made ahead."""
        ahead = self.ahead
        if ahead is None:
            return False
        if not orders["ahead"] or not ahead.stands or not ahead.suits(orders) or not ahead.go(orders, descriptors):
            self.give_up_ahead()
            return False
        self.ahead = None
        ahead.channel.close()
        return True

    def give_up_ahead(self):
        if self.ahead is not None:
            self.ahead.end()
            self.launched.discard(self.ahead.pid)
            self.ahead = None

    def check(self):
        why = self.unfit()
        if why:
            raise Refused(why)
        changed = self.files.changed()
        if changed:
            raise Refused(f"{changed} has changed since it was imported")


def open_device():
    """What this process would share with whatever is forked from it; None if there is nothing."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if target.startswith(DEVICES):
            return f"it has opened {target}"
    return "it has initialised CUDA" if has_initialised_cuda() else None


def has_initialised_cuda():
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD)
    except OSError:
        # Whoever has not loaded it has not called it.
        return False
    return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != NOT_INITIALIZED


def content_of(path):
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        # Of a thread that has just ended; or the kernel does not tell of children.
        return ""
