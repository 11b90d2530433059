"""vLLM in this process: a model loaded, what it generates, which kernels it holds."""

import dataclasses
import gc
import os
import pathlib

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
import vllm

PROMPTS = [[1, 5, 9], list(range(2, 40)), [100]]
TOKENS = 16


@dataclasses.dataclass
class Generated:
    tokens: list[list[int]]
    margins: list[list[float]]  # between the best two tokens, in logits
    kernels: dict[str, str]  # of each quantized layer: its kernel's class


def _kernels_of(model: torch.nn.Module) -> dict[str, str]:
    found = {}
    for name, module in model.named_modules():
        method = getattr(module, "scheme", None) or getattr(module, "quant_method", None)
        if hasattr(method, "kernel"):
            found[name] = type(method.kernel).__name__
    return found


def generate(folder: pathlib.Path, dtype: str, *, run: bool = True, **options) -> Generated:
    options = {"enforce_eager": True, **options}
    llm = vllm.LLM(str(folder), dtype=dtype, max_model_len=128, kv_cache_memory_bytes=32 << 20,
                   disable_log_stats=True, enable_prefix_caching=False, **options)
    try:
        kernels = llm.apply_model(_kernels_of)[0]  # those of the first rank
        found = Generated([], [], kernels)
        if not run:
            return found
        wanted = vllm.SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, logprobs=2)
        for output in llm.generate([{"prompt_token_ids": p} for p in PROMPTS], wanted,
                                   use_tqdm=False):
            best = output.outputs[0]
            found.tokens.append(list(best.token_ids))
            found.margins.append([])
            for ranks in best.logprobs:
                first, second = sorted((r.logprob for r in ranks.values()), reverse=True)[:2]
                found.margins[-1].append(first - second)
        return found
    finally:
        del llm
        gc.collect()


def same_tokens(found: Generated, expected: Generated, tie: float) -> bool:
    """Whether the tokens are the same, or differ first where the best two tie within rounding."""
    for ours, theirs, margins in zip(found.tokens, expected.tokens, expected.margins):
        for a, b, margin in zip(ours, theirs, margins):
            if a != b:
                if margin > tie:
                    return False
                break
    return True
