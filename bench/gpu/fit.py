#!/usr/bin/env python3
"""Fit the nanoseconds of plugins/gpu/plan_wide.c to what candidates took.

    for s in "2112 2816 32" "4096 4096 128" ...; do for m in 1 16 64 ...; do
        harness gpu.cubin sweep $s $m; done; done >sweep.txt
    fit.py sweep.txt [SECONDS]

Of plain layers: what act-order costs besides (table_ns) is not in the model, so leave its lines out.
Needs numpy and SciPy. Prints how far the choices are from the best, and the numbers of cost_of: the
model here is that one, in microseconds. Least squares first, with candidates near the best counting
most; then a random walk on what matters, the time that choices lose.
"""
import re
import sys
import time

import numpy
from scipy.optimize import least_squares

LINE = re.compile(r"\s+cand (\d+)x(\d+) m=(\d+) wide_u4_f16_(\d+)x(\d+)(g?) w\d/(\d+) grid (\d+): "
                  r"([\d.]+) us")
MULTIPROCESSORS = 132
TILES = [(64, 8), (128, 8), (256, 8), (64, 16), (128, 16), (64, 32), (128, 32), (64, 64),
         (64, 128), (128, 64), (128, 128), (128, 192), (256, 128), (128, 256)]
ALONE = {(64, 128), (128, 128), (128, 192), (256, 128), (128, 256)}  # on their multiprocessor
COUNTS_MORE = {(2112, 2816, 128): 12, (4096, 4096, 64): 4, (2112, 2816, 16): 3, (4096, 4096, 16): 3,
               (14336, 4096, 1): 3, (8192, 28672, 128): 3, (8192, 1024, 1): 2}  # K, N, m: how often
FIELDS = ("begin", "stage", "any_stage", "crowded", "any_crowded")
SINGLE = ("launch", "slower", "read", "read_each", "late", "free")
COUNT = len(TILES)


class Sweep:
    def __init__(self, lines):
        found = [m.groups() for m in map(LINE.match, lines) if m]
        number = numpy.array([[float(v) for v in (*g[:5], g[6], g[7], g[8])] for g in found])
        k, n, m, self.tile_n, self.m, self.cluster, grid, self.t = number.T
        self.any = numpy.array([g[5] == "g" for g in found])
        tile = list(zip(self.tile_n.astype(int), self.m.astype(int)))
        self.tile = numpy.array([TILES.index(x) for x in tile])
        resident = numpy.array([1 if x in ALONE else 2 for x in tile])
        self.rounds = numpy.ceil(numpy.ceil(n / self.tile_n) * numpy.ceil(m / self.m) /
                                 (grid / self.cluster))
        self.stages = numpy.ceil(numpy.ceil(k / 128) / self.cluster)
        self.crowded = (grid > MULTIPROCESSORS) & (resident == 2)
        self.taken = grid / (MULTIPROCESSORS * resident)
        self.bytes = k * n / 2 + k * n / numpy.where(self.any, 32, 128) * 2
        calls = {}
        for i, call in enumerate(zip(k, n, m)):
            calls.setdefault(call, []).append(i)
        self.calls = [numpy.array(c) for c in calls.values()]
        self.names = [f"{int(c[0])}x{int(c[1])} m={int(c[2])}" for c in calls]
        self.counts = [COUNTS_MORE.get(tuple(map(int, call)), 1) for call in calls]
        best = numpy.zeros(len(self.t))
        for call in self.calls:
            best[call] = self.t[call].min()
        self.weight = (best / self.t) ** 5


def unpack(p):
    value = {f: p[i * COUNT:(i + 1) * COUNT] for i, f in enumerate(FIELDS)}
    value.update(zip(SINGLE, p[len(FIELDS) * COUNT:]))
    value["join"] = numpy.concatenate([[0], p[-7:]])
    return value


def model(p, s):
    v = unpack(p)
    stage = numpy.where(s.any, v["any_stage"][s.tile], v["stage"][s.tile])
    crowd = numpy.where(s.any, v["any_crowded"][s.tile], v["crowded"][s.tile])
    work = s.rounds * s.stages * stage * numpy.where(s.crowded, crowd, 1)
    join = v["join"][s.cluster.astype(int) - 1] * (1 + v["slower"] * s.m / 64)
    return (v["launch"] + v["late"] * numpy.maximum(0, s.taken - v["free"]) +
            s.rounds * (v["begin"][s.tile] + join) +
            numpy.maximum(work, v["read"] + v["read_each"] * s.bytes / 3e6))


def lost(p, s):
    """What each call's choice takes over the best."""
    cost = model(p, s)
    return [s.t[c[numpy.argmin(cost[c])]] / s.t[c].min() - 1 for c in s.calls]


def objective(p, s):
    cost, total = model(p, s), 0
    for c, count in zip(s.calls, s.counts):  # choices weighed by how near they come: a slope
        near = numpy.exp(-40 * numpy.log(cost[c] / cost[c].min()))
        total += count * (near / near.sum() * numpy.log(s.t[c] / s.t[c].min())).sum()
    fit = (s.weight * numpy.log(cost / s.t) ** 2).sum() / s.weight.sum()
    return 3 * total / len(s.calls) + fit


def main(path, seconds):
    s = Sweep(open(path))
    size = numpy.array([n * m / 8192 for n, m in TILES])
    start = numpy.concatenate([size, .25 + size / 3, .3 + size / 3, numpy.full(2 * COUNT, 1.2),
                               [.3, 1.5, .7, .9, 3, .3], numpy.full(7, .7)])
    low = numpy.concatenate([numpy.zeros(COUNT), numpy.full(2 * COUNT, .05), numpy.ones(2 * COUNT),
                             [.2, 0, 0, .8, 0, 0], numpy.zeros(7)])
    high = numpy.concatenate([numpy.full(COUNT, 15.), numpy.full(2 * COUNT, 5.),
                              numpy.full(2 * COUNT, 2.6), [3, 5, 2, 1.3, 9, .9], numpy.full(7, 3.)])
    p = least_squares(lambda q: numpy.sqrt(s.weight) * numpy.log(model(q, s) / s.t), start,
                      bounds=(low, high), loss="soft_l1", f_scale=.1).x
    draw, best, end = numpy.random.default_rng(1), objective(p, s), time.time() + seconds
    step = numpy.maximum(p * .15, .03)
    while time.time() < end:
        q = p.copy()
        at = draw.integers(len(p), size=draw.integers(1, 4))
        q[at] += draw.normal(size=len(at)) * step[at] * draw.choice([1, .3, .1])
        q = numpy.clip(q, low, high)
        score = objective(q, s)
        if score < best:
            best, p = score, q
    v, over = unpack(p), lost(p, s)
    for name, value in sorted(zip(s.names, over), key=lambda x: -x[1])[:10]:
        print(f"{name}: {100 * value:.1f} % over the best")
    print(f"{len(s.t)} candidates of {len(over)} calls: {100 * numpy.mean(over):.1f} % over the best "
          f"on average, {100 * max(over):.1f} % at worst")
    for i, tile in enumerate(TILES):
        print(f"{tile[0]}x{tile[1]}:", ", ".join(f"{f} {v[f][i]:.3f}" for f in FIELDS))
    print(", ".join(f"{f} {v[f]:.3f}" for f in SINGLE), "join", numpy.round(v["join"], 3))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 120)
