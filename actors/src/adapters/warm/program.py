"""Imports what a vLLM server imports, once, and forks a ready-made process for each launch.

Run by vLLM's own interpreter, as `python -c TEXT`, of which the text makes room for the titles of
processes, as VLLMD_RESERVE in the environment does for what marks a launch. Standard input is a socket
(AF_UNIX, SOCK_SEQPACKET) to the supervisor; each datagram is one JSON object.

It has no thread and touches no device: with either, what it forks may hang. It ends with its
supervisor, whose end of the socket is closed then.

What to import it learns from its launches: their processes send the names of what they have imported
once they serve, and which libraries vLLM had them begin with (LD_PRELOAD). It relies on the command
`vllm` in the metadata of the packages; that engines and workers are forked too reaches further into
vLLM, and is left if that has changed.
"""

import sys

# Nothing is imported from the working directory in the place of what vLLM means.
if not getattr(sys.flags, "safe_path", False):
    sys.path[:1] = []

import ctypes
import gc
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import select
import signal
import socket
import threading
import time
import types

PROTOCOL = 1

# When this began, by the clock that files are stamped with, which ticks a hundred times a second.
BORN = time.time_ns() - 10_000_000

# Pools and clients whose threads do their work unseen, and are missed after a fork. NVML has a thread
# too (`cuda…`, driver 580), and is none of them: what was forked has used CUDA.
UNFIT_THREADS = ("ZMQbg", "grpc", "tokio", "ray")

# Opened when a device is initialised. Those of NVIDIA are opened by NVML already: CUDA is asked.
DEVICES = ("/dev/kfd", "/dev/dri/renderD", "/dev/accel")

# What CUDA answers before `cuInit` was called (CUDA Driver API, `CUDA_ERROR_NOT_INITIALIZED`).
NOT_INITIALIZED = 3

# Seconds between two signs of life while something is imported.
SIGN_OF_LIFE = 0.2

# Seconds in which the processes of a launch tell what they have imported.
TELLING = 5.0

# What the runtime loader reads when a program begins, and never again (ld.so(8)).
PRELOAD = "LD_PRELOAD"

# How vLLM starts its engine and its workers (`envs.py`).
METHOD = "VLLM_WORKER_MULTIPROC_METHOD"

# What OpenMP reads when a program begins, and never again: how many threads, and on which processors.
# vLLM gives each worker on a CPU its own (`utils/ompmultiprocessing.py`), as plain lists of numbers.
THREADS = "OMP_NUM_THREADS"
PROCESSORS = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES")

# Where this program finds what it was told before it began anew.
TOLD = "VLLMD_TOLD"

# Bytes of a datagram: far below what a socket holds (unix(7), `net.core.wmem_default`).
DATAGRAM = 32 * 1024


class Refused(Exception):
    """Why nothing is forked."""


class TookTooLong(BaseException):
    """Not an `Exception`, which a module may catch around an import of its own."""


class Launch(Exception):
    """Raised in a process that was just forked, to leave behind what its parent was amid."""


class Supervisor:
    """The other end of the socket."""

    def __init__(self):
        # Standard input is passed on to whatever a module starts, which would keep the socket open.
        self.socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self.last_sign = 0.0

    def say(self, word, **details):
        try:
            self.socket.send(json.dumps({"say": word, **details}).encode())
        except BrokenPipeError:
            os._exit(0)

    def live(self):
        """Tells that something goes on, though nothing is finished."""
        now = time.monotonic()
        if now - self.last_sign >= SIGN_OF_LIFE:
            self.last_sign = now
            self.say("alive")

    def hear(self):
        """The next order and its descriptors; ends this process when there will be none."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
        if not data:
            os._exit(0)
        return json.loads(data), descriptors

    def has_spoken(self):
        return bool(spoken_of([self.socket], 0))


def spoken_of(sockets, seconds):
    """Which of these have something to read, by then. Not by select(2), which knows 1024 descriptors."""
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)
    spoken = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
    return [each for each in sockets if each.fileno() in spoken]


class SignsOfLife:
    """A finder of modules that finds none: it is asked before each import."""

    def __init__(self, supervisor):
        self.supervisor = supervisor

    def find_spec(self, name, path=None, target=None):
        self.supervisor.live()


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
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except FileNotFoundError:
                continue
            if target.startswith(DEVICES):
                return f"it has opened {target}"
        return "it has initialised CUDA" if has_initialised_cuda() else None

    def serve(self):
        """Does as it is told, for ever. In what is forked it ends by `Launch`."""
        while True:
            self.obey()
            if self.lesson is not None:
                self.learn()

    def obey(self):
        orders, descriptors = self.supervisor.hear()
        what = orders["do"]
        if what == "launch":
            self.launch(orders, descriptors)
        elif what == "reap":
            self.reap(orders["pid"])
        elif what == "learn":
            self.lesson = orders["model"]

    def learn(self):
        model, self.lesson = self.lesson, None
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
        told = {**self.told, "launched": list(self.launched), "preload": preload}
        os.environ.update({PRELOAD: preload, TOLD: json.dumps(told)})
        os.dup2(self.supervisor.socket.fileno(), 0)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def reap(self, pid):
        if pid in self.launched and os.waitpid(pid, os.WNOHANG)[0] == pid:
            self.launched.discard(pid)

    def launch(self, orders, descriptors):
        log, channel, *cgroup = descriptors
        channel = socket.socket(fileno=channel)
        try:
            self.check()
            pid = os.fork()
        except (Refused, OSError) as error:
            channel.send(json.dumps({"say": "refused", "why": str(error)}).encode())
            pid = None
        if pid == 0:
            self.supervisor.socket.close()
            become(orders, log, channel, cgroup)
            raise Launch(orders)
        if pid:
            self.launched.add(pid)
        for descriptor in (log, *cgroup):
            os.close(descriptor)
        channel.close()

    def check(self):
        why = self.unfit()
        if why:
            raise Refused(why)
        changed = self.files.changed()
        if changed:
            raise Refused(f"{changed} has changed since it was imported")


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


def become(orders, log, channel, cgroup):
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
        mark(orders["marks"])
        del os.environ["VLLMD_RESERVE"]
        os.environ.update(orders["marks"])
        os.environ.update(orders["environment"])
        words = orders["words"]
        entitle(" ".join(words), os.path.basename(words[0]))
        channel.send(json.dumps({"say": "standing", "pid": os.getpid()}).encode())
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


def mark(marks):
    """Has the environment that others see in /proc carry these, in the place of the reserve."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b") ")[2].split()
    # Fields 50 and 51 of proc_pid_stat(5), of which the third comes first here.
    start, end = int(fields[47]), int(fields[48])
    text = b"\0".join(os.fsencode(f"{name}={value}") for name, value in marks.items())
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        shown = memory.read(end - start)
        at = shown.find(b"VLLMD_RESERVE=")
        room = shown.find(b"\0", at) - at
        if at < 0 or room < len(text):
            raise Refused("there is no room for the marks of a launch")
        memory.seek(start + at)
        memory.write(text.ljust(room, b"\0"))
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
        (orders,) = launch.args
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
    sys.exit(command())


main()
