#!/usr/bin/env python3
"""Tokens a second in vLLM: Kernelry beside vLLM's own W4A16 kernel and its dense linears.

Each engine is a process of its own that holds the same model; they take turns, round after round,
and sleep in between. Run it in an environment with vLLM and Kernelry:

    .cache/vllm/bin/python bench/vllm_tokens.py [--engines vllm,dense] [--json FILE]

The model is a decoder of two layers with random weights, so what is measured is vLLM's step and
the linears in it; its numbers say nothing of what it generates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent / "python" / "tests"
sys.path[:0] = [str(TESTS / "stacks" / "vllm"), str(TESTS)]  # checkpoints, and what it imports

ENGINES = {
    "kernelry": {"KERNELRY_VLLM_POSITION": "first"},
    "vllm": {"VLLM_DISABLED_KERNELS": "KernelryLinearKernel"},
    "dense": {},
}
GROUP = 128


def serve(folder: str, dtype: str, tokens: int) -> None:
    """A child: load, then a line of seconds for each batch that is asked for."""
    import torch
    import vllm

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM logs where we answer
    llm = vllm.LLM(folder, dtype=dtype, max_model_len=256, enforce_eager=True,
                   kv_cache_memory_bytes=256 << 20, disable_log_stats=True,
                   enable_prefix_caching=False)
    wanted = vllm.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)

    def run(batch: int) -> float:
        prompts = [{"prompt_token_ids": [1 + i, 5, 9, 17]} for i in range(batch)]
        began = time.perf_counter()
        llm.generate(prompts, wanted, use_tqdm=False)
        return time.perf_counter() - began

    try:
        run(1)
    except AttributeError as error:  # an operator that this vLLM was built without
        print(json.dumps({"missing": str(error)}), file=out)
        return
    print(json.dumps({"threads": torch.get_num_threads()}), file=out)
    for line in sys.stdin:
        print(run(int(line)), file=out)


class Engine:
    """A child that answers."""

    def __init__(self, name: str, folder: pathlib.Path, options: argparse.Namespace,
                 log: pathlib.Path) -> None:
        self.name = name
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--serve", str(folder), "--dtype", options.dtype,
                 "--tokens", str(options.tokens)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                     "VLLM_NO_USAGE_STATS": "1", **ENGINES[name]})
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{name} did not start:\n{log.read_text()[-3000:]}")
        self.about = json.loads(answer)

    def seconds(self, batch: int) -> float:
        print(batch, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def write_models(root: pathlib.Path, options: argparse.Namespace) -> dict[str, pathlib.Path]:
    import checkpoints

    model = checkpoints.Model(hidden=options.hidden, intermediate=options.intermediate,
                              heads=options.hidden // 128, kv_heads=max(options.hidden // 512, 1),
                              head_size=128)
    dense = checkpoints.write_dense(model, root / "dense")
    quantized = checkpoints.write_compressed_tensors(dense, root / "w4", "--group-size", str(GROUP))
    return {"kernelry": quantized, "vllm": quantized, "dense": dense}


def race(engines: list[Engine], options: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    """Tokens a second of each engine and batch, a figure a round."""
    found: dict[str, dict[int, list[float]]] = {e.name: {} for e in engines}
    for index in range(options.rounds + 1):  # the first warms up
        for batch in options.batches:
            for engine in engines:
                rate = batch * options.tokens / engine.seconds(batch)
                if index > 0:
                    found[engine.name].setdefault(batch, []).append(rate)
    return found


def table(found: dict[str, dict[int, list[float]]], batches: list[int]) -> str:
    lines = ["| batch | " + " | ".join(found) + " |", "|" + "---|" * (len(found) + 1)]
    for batch in batches:
        cells = [f"{statistics.median(rates[batch]):.1f}" for rates in found.values()]
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    ours = found["kernelry"]
    for name, rates in found.items():
        if name != "kernelry":
            ratios = (statistics.median(a / b for a, b in zip(ours[m], rates[m])) for m in batches)
            lines.append(f"\nkernelry / {name}: " + ", ".join(
                f"{ratio:.2f} at {m}" for ratio, m in zip(ratios, batches)))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--batches", type=lambda t: [int(m) for m in t.split(",")],
                        default=[1, 4, 32])
    parser.add_argument("--engines", type=lambda t: t.split(","),
                        default=["vllm"], help="beside Kernelry: vllm, dense (vllm)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=5632)
    parser.add_argument("--json", help="where every round's figure goes")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.dtype, options.tokens)
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = pathlib.Path(folder)
        models = write_models(root, options)
        engines = []
        for name in ["kernelry", *options.engines]:
            engine = Engine(name, models[name], options, root / f"{name}.log")
            stack.callback(engine.close)
            if "missing" in engine.about:
                print(f"{name} is left out: {engine.about['missing']}")
            else:
                engines.append(engine)
        found = race(engines, options)
        print(f"tokens a second, {options.dtype}, {options.hidden} hidden, {options.intermediate} "
              f"intermediate, groups of {GROUP}, {engines[0].about['threads']} threads\n")
        print(table(found, options.batches))
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
