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

Its files are read as one text, one behind the other: begin, lessons, ahead, warm, launched,
engines, main.
"""

import sys

# Nothing is imported from the working directory in the place of what vLLM means.
if not getattr(sys.flags, "safe_path", False):
    sys.path[:1] = []

import atexit
import builtins
import ctypes
import gc
import hashlib
import importlib
import importlib.metadata
import io
import json
import operator
import os
import re
import select
import signal
import socket
import threading
import time
import types

PROTOCOL = 1

# Seconds between two signs of life while something is imported.
SIGN_OF_LIFE = 0.2

# Where this program finds what it was told before it began anew.
TOLD = "VLLMD_TOLD"


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
    """Which of these have something to read, by then, or at some time if that is negative. Not by
    select(2), which knows 1024 descriptors."""
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
