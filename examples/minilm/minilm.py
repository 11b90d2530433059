"""A real model with Kernelry inside: MiniLM, whose six layers turn sentences into vectors.

    ./dev demo                                   # leaves the trained weights in .cache/minilm
    pip install ./python torch transformers
    python examples/minilm/minilm.py

Quantizes it to 4 bits in groups of 32 (`kernelry quantize`), converts Hugging Face's BertModel in
place (`kernelry.torch.convert`) and compares, on 200 pairs of sentences, with the same quantized
weights dequantized in float32, and with the weights as they were trained. Exits with 1 where the
first comparison fails.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from transformers import AutoConfig, AutoTokenizer, BertModel

import kernelry
from kernelry.torch import convert

PAIRS = 200
COSINE_LEAST = 0.9999

# Themes with several sentences each, so that pairs are alike in all degrees.
SENTENCES = """
The cat sleeps on the warm windowsill. | A kitten naps in the sun. | Cats like warm places.
The dog barks at the postman. | A puppy chased the mail carrier down the road.
It has been raining since the morning. | The weather is wet today. | Tomorrow will be dry and sunny.
The train to the coast is late again. | Our bus was on time. | Flights were cancelled after the storm.
She plays the violin in an orchestra. | He is learning to play the piano. | The concert hall was full.
Bread is made of flour, water, salt and yeast. | Knead the dough and let it rest. | I bought a cake.
The match ended without a goal. | Our team won in the last minute. | The runner broke the record.
The compiler reports an error in line ten. | This program does not compile. | The test suite passes.
Interest rates were raised by the central bank. | The price of shares fell. | Inflation slows down.
The moon circles the earth in a month. | Jupiter is the largest planet. | A telescope shows its rings.
"""


def sentences() -> list[str]:
    return [s.strip() for line in SENTENCES.strip().splitlines() for s in line.split("|")]


def embed(model: torch.nn.Module, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean of a sentence's token vectors, of length 1, as the model was trained for."""
    with torch.inference_mode():
        vectors = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(vectors.dtype)
    mean = (vectors * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean.double(), dim=1)


def dequantized(checkpoint: kernelry.Checkpoint, name: str) -> torch.Tensor:
    """W of a symmetric layer from the stored tensors, by code that shares nothing with a kernel."""
    packed = checkpoint.tensor(f"{name}.weight_packed").array.view(numpy.uint32)
    stored = checkpoint.tensor(f"{name}.weight_scale")
    scales = stored.array
    if stored.dtype == "BF16":
        scales = (scales.astype(numpy.uint32) << 16).view(numpy.float32)
    codes = (packed[:, :, None] >> numpy.arange(0, 32, 4, dtype=numpy.uint32)) & 15
    codes = codes.reshape(packed.shape[0], -1).astype(numpy.float32) - 8
    group = codes.shape[1] // scales.shape[1]
    return torch.from_numpy(codes * numpy.repeat(scales.astype(numpy.float32), group, axis=1))


def ranks(values: numpy.ndarray) -> numpy.ndarray:
    return values.argsort().argsort().astype(numpy.float64)


def spearman(a: numpy.ndarray, b: numpy.ndarray) -> float:
    return float(numpy.corrcoef(ranks(a), ranks(b))[0, 1])


def similarities(vectors: torch.Tensor, pairs: list[tuple[int, int]]) -> numpy.ndarray:
    first, second = zip(*pairs)
    return (vectors[list(first)] * vectors[list(second)]).sum(1).numpy()


def compare(folder: pathlib.Path, quantized: pathlib.Path) -> dict[str, float]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = dict(tokenizer(sentences(), padding=True, return_tensors="pt"))
    every = list(itertools.combinations(range(len(sentences())), 2))
    pairs = [every[i] for i in numpy.random.default_rng(2112).permutation(len(every))[:PAIRS]]

    trained = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = {"trained": embed(trained, tokens)}

    checkpoint = kernelry.Checkpoint(quantized)
    reference = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for layer in checkpoint.layers:
            reference.get_submodule(layer.name).weight.copy_(dequantized(checkpoint, layer.name))
    vectors["dequantized"] = embed(reference, tokens)

    model = BertModel(AutoConfig.from_pretrained(folder)).eval()
    report = convert(model, checkpoint, dtype=torch.float32)
    print(f"{len(report.kernels)} layers run on {', '.join(sorted(set(report.kernels.values())))}; "
          f"{len(report.loaded)} other tensors loaded, {len(report.missing)} missing")
    vectors["kernelry"] = embed(model, tokens)

    cosines = (vectors["kernelry"] * vectors["dequantized"]).sum(1)
    close = {name: similarities(found, pairs) for name, found in vectors.items()}
    return {"cosine_least": cosines.min().item(),
            "spearman_trained": spearman(close["kernelry"], close["trained"]),
            "spearman_dequantized": spearman(close["kernelry"], close["dequantized"])}


def main() -> int:
    here = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=here / ".cache" / "minilm",
                        help="the trained model's folder (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quantized = pathlib.Path(folder) / "w4"
        subprocess.run(["kernelry", "quantize", options.model, quantized, "--bits", "4",
                        "--group-size", "32"], check=True, stdout=subprocess.DEVNULL)
        found = compare(options.model, quantized)
    print(f"least cosine with the dequantized weights  {found['cosine_least']:.7f}\n"
          f"Spearman with them, {PAIRS} pairs            {found['spearman_dequantized']:.4f}\n"
          f"Spearman with the trained weights          {found['spearman_trained']:.4f}")
    if options.json:
        print(json.dumps(found))
    return 0 if found["cosine_least"] > COSINE_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
