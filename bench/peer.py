"""The side of a peer: what peer_*.py share. README.md describes the lines that are spoken."""

import gc
import json
import mmap
import os
import sys
import time
import traceback

import numpy as np

DATA_DESCRIPTOR = 3


class Refusal(Exception):
    """The library cannot do what is asked; the sentence says why."""


class Layer:
    """A layer's weights and activations, read from the memory that is shared with kernelry."""

    def __init__(self, request):
        size = os.fstat(DATA_DESCRIPTOR).st_size
        self.memory = mmap.mmap(DATA_DESCRIPTOR, size)
        self.k = request["in_features"]
        self.n = request["out_features"]
        self.group_size = request["group_size"]
        self.groups = request["groups"]
        self.bits = request["bits"]
        self.x_at = request["x"]
        self.y_at = request["y"]
        self.codes = self.tensor(np.uint8, (self.n, self.k), request["codes"])
        self.scales = self.tensor(np.float32, (self.n, self.groups), request["scales"])
        self.zero_points = None
        if "zero_points" in request:
            self.zero_points = self.tensor(
                np.uint8, (self.n, self.groups), request["zero_points"]
            )

    def tensor(self, dtype, shape, offset):
        count = int(np.prod(shape))
        return np.frombuffer(self.memory, dtype, count, offset).reshape(shape)

    def x(self, m):
        return self.tensor(np.float32, (m, self.k), self.x_at)

    def y(self, m):
        return self.tensor(np.float32, (m, self.n), self.y_at)

    def copy(self, index):
        """(codes, scales, zero points or None) with the rows rotated: copies hold the same
        numbers at other places, so that no library takes two of them for one."""
        zero_points = self.zero_points
        if zero_points is not None:
            zero_points = np.roll(zero_points, index, 0)
        return np.roll(self.codes, index, 0), np.roll(self.scales, index, 0), zero_points


def need(condition, reason):
    if not condition:
        raise Refusal(reason)


def pack_nibbles(codes):
    """Two codes a byte along the last axis, the first in the low half."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


class Server:
    """Answers requests with a library's peer, a class with

    Peer(compute, threads)   compute: the numeric class; may raise Refusal
    version                  of the library
    build(layer, copies)     may raise Refusal
    bind(m, x)               make ready for applies of m rows of x (numpy, f32)
    apply(copy)              compute; what is timed
    run(applies)             optional: apply the copies in turn so often; nanoseconds of each
    result(copy)             y of the last apply as an array of f32
    release()                give back what build made
    """

    def __init__(self, peer):
        self.peer = peer
        self.layer = None
        self.copies = 0
        self.next = 0
        self.bound = None
        self.requests = {
            "prepare": self.prepare,
            "check": self.check,
            "run": self.run,
            "release": self.release,
        }

    def prepare(self, request):
        self.release(None)
        self.layer = Layer(request)
        self.copies = request["copies"]
        self.peer.build(self.layer, self.copies)

    def bind(self, m):
        if self.bound != m:
            self.peer.bind(m, self.layer.x(m))
            self.bound = m
            # A library may compile for a new m, for each copy by itself.
            for copy in range(self.copies):
                self.peer.apply(copy)

    def check(self, request):
        self.bind(request["m"])
        self.peer.apply(0)
        self.layer.y(request["m"])[:] = self.peer.result(0)

    def apply_next(self):
        self.next = (self.next + 1) % self.copies
        begin = time.perf_counter_ns()
        self.peer.apply(self.next)
        return max(time.perf_counter_ns() - begin, 1)

    def run(self, request):
        self.bind(request["m"])
        if hasattr(self.peer, "run"):
            return {"nanoseconds": self.peer.run(request["applies"])}
        for _ in range(request["uncounted"]):
            self.apply_next()
        return {"nanoseconds": [self.apply_next() for _ in range(request["applies"])]}

    def release(self, _request):
        self.bound = None
        if self.layer is not None:
            self.peer.release()
        self.layer = None
        gc.collect()

    def answer(self, line):
        request = json.loads(line)
        try:
            found = self.requests[request["do"]](request)
        except Refusal as refusal:
            return {"ok": False, "reason": str(refusal)}
        except Exception as error:  # a library's own errors have no common base
            traceback.print_exc()
            return {"ok": False, "reason": f"{type(error).__name__}: {error}"[:300]}
        return {"ok": True, **(found or {})}


def serve(make_peer):
    """Speak on standard input and output until the input ends. The library is imported inside
    make_peer(compute, threads); what it prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=out)

    try:
        peer = make_peer(sys.argv[1], int(sys.argv[2]))
    except (Refusal, ImportError) as reason:
        say({"ok": False, "reason": str(reason)})
        return
    say({"ok": True, "version": peer.version})
    gc.disable()
    server = Server(peer)
    for line in sys.stdin:
        say(server.answer(line))
