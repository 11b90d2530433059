"""vLLM as it is used: the OpenAI server, and ranks in processes of their own."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("vllm")

import checkpoints
from checkpoints import Model
from engine import PROMPTS, Generated, generate, same_tokens

ENGINE = ["--max-model-len", "128", "--enforce-eager", "--kv-cache-memory-bytes", str(32 << 20)]
# In 704 of K with groups of 64, the second of two ranks starts in the middle of one.
SPLIT = Model(intermediate=704)

RANKS = """
import json, sys
from engine import generate
if __name__ == "__main__":
    found = generate(sys.argv[1], "float32", quantization="kernelry", tensor_parallel_size=2)
    print("TOKENS", json.dumps(found.tokens))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    dense = checkpoints.write_dense(SPLIT, root / "dense")
    return checkpoints.write_compressed_tensors(dense, root / "w4", "--group-size", "64", "--asym")


def environment(**changed: str) -> dict[str, str]:
    return {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            **changed}


def test_two_ranks_generate_as_one(folder, tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("vLLM binds each rank to a processor of its own: there is one")
    (tmp_path / "ranks.py").write_text(RANKS)
    here = str(pathlib.Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, tmp_path / "ranks.py", folder], capture_output=True, text=True,
        timeout=300, check=False,
        env=environment(PYTHONPATH=here, VLLM_ALLOW_INSECURE_SERIALIZATION="1",
                        VLLM_CPU_OMP_THREADS_BIND=f"{cpus[0]}|{cpus[1]}"))
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOKENS ")]
    two = json.loads(line.removeprefix("TOKENS "))
    assert "from k 352 of 704 (inside a group)) runs on" in log
    one = generate(folder, "float32", quantization="kernelry")
    assert same_tokens(Generated(two, [], {}), one, tie=1e-4)


@contextlib.contextmanager
def server(folder, log, **changed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
               "--served-model-name", "small", "--host", "127.0.0.1", "--port", str(port),
               "--dtype", "float16", *ENGINE]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT,
                                   env=environment(VLLM_ENABLE_V1_MULTIPROCESSING="1", **changed))
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def answers(url: str, body: dict | None = None) -> dict | None:
    """What a server answers; None while there is none."""
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"},
                                     data=json.dumps(body).encode() if body else None)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")
    except (ConnectionError, urllib.error.URLError) as error:
        if isinstance(error, urllib.error.HTTPError):
            raise AssertionError(error.read().decode()) from error
        return None


def test_openai_server_answers_with_kernelry_inside(folder, tmp_path):
    log = tmp_path / "log"
    with server(folder, log, KERNELRY_VLLM_POSITION="first") as (process, url):
        end = time.monotonic() + 240
        while answers(f"{url}/health") is None:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-4000:]
            time.sleep(0.5)
        prompt = " ".join(f"w{token}" for token in PROMPTS[1])
        answer = answers(f"{url}/v1/completions",
                         {"model": "small", "prompt": prompt, "max_tokens": 8, "temperature": 0,
                          "ignore_eos": True})
    words = answer["choices"][0]["text"].split()
    assert len(words) == 8 and all(word.startswith("w") for word in words)
    assert "model.layers.1.mlp.down_proj (704×256 u4 g64 f16) runs on" in log.read_text()
    assert "Using KernelryLinearKernel" in log.read_text()
