"""Draw the result of `kernelry bench ... --json` as a roofline: plot.py RESULT.json PICTURE.png"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

OURS = {"f32": "tab:cyan", "f16": "tab:blue", "bf16": "tab:purple", "int8": "tab:red"}
PEERS = {
    "onnxruntime": "tab:orange",
    "openvino": "tab:green",
    "torch": "tab:brown",
    "cublas": "tab:olive",
    "torch_cuda": "tab:brown",
}
PEER_MARKERS = {"f32": "v", "f16": "<", "bf16": ">", "int8": "^"}


def limits_of(result):
    """The best of each limit: GB/s, and G operations/s."""
    return {
        limit["limit"]: limit["median"]
        for limit in result["limits"]
        if limit["chosen"] and limit["median"] is not None
    }


def points_of(result):
    """(name, style, operations a byte, G operations/s) of all that was measured. A rate is the part
    of the limit that was reached in the same rounds, since clocks change from row to row."""
    limits = limits_of(result)
    for row in result["rows"]:
        for entry in row["entries"]:
            if entry["median_seconds"] is None or entry["beside"] == "threads":
                continue
            if entry["kind"] == "kernel":
                compute = entry["name"]
                beside = entry["beside"] is not None
                name = f"kernelry {compute}" + (", aligned" if beside else "")
                style = {"color": OURS.get(compute, "black"), "marker": "s" if beside else "o"}
            else:
                library, compute = entry["name"].split(" ")
                name = entry["name"]
                style = {
                    "color": PEERS.get(library, "gray"),
                    "marker": PEER_MARKERS.get(compute, "x"),
                }
            rate = entry["operations"] / entry["median_seconds"] * 1e-9
            if entry["part_of_peak"] is not None and entry["limit"] in limits:
                rate = entry["part_of_peak"] * limits[entry["limit"]]
            yield name, style, entry["operations"] / entry["bytes"], rate


def draw_limits(axes, limits, low, high):
    if "read" not in limits:
        return
    read = limits["read"]
    for kind, peak in limits.items():
        if kind == "read":
            continue
        knee = peak / read
        axes.plot([knee, max(high, knee)], [peak, peak], color="black", linewidth=0.8)
        axes.text(high, peak, f"{kind} {peak:.0f} Gop/s", ha="right", va="bottom", fontsize=8)
    top = max((peak for kind, peak in limits.items() if kind != "read"), default=read * high)
    end = top / read
    axes.plot([low, end], [low * read, top], color="black", linewidth=0.8)
    axes.text(low, low * read, f"read {read:.1f} GB/s", ha="left", va="top", fontsize=8)


def main(source, target):
    with open(source, encoding="utf-8") as file:
        result = json.load(file)
    figure, axes = plt.subplots(figsize=(11, 7))
    groups = {}
    for name, style, intensity, rate in points_of(result):
        groups.setdefault(name, (style, [], []))
        groups[name][1].append(intensity)
        groups[name][2].append(rate)
    all_x = [x for _, xs, _ in groups.values() for x in xs] or [1, 100]
    draw_limits(axes, limits_of(result), min(all_x) / 1.5, max(all_x) * 1.5)
    for name, (style, xs, ys) in sorted(groups.items()):
        hollow = "none" if not name.startswith("kernelry") else style["color"]
        axes.scatter(
            xs,
            ys,
            label=name,
            marker=style["marker"],
            edgecolors=style["color"],
            facecolors=hollow,
            s=28,
            linewidths=1,
        )
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("operations a byte (weights as described, x, y)")
    axes.set_ylabel("G operations/s")
    threads = "" if "timed_by" in result else f", {result['threads']} threads"
    axes.set_title(
        f"{result['cpu']}{threads}; kernelry {result['commit'] or ''}"
        f" {result['date'][:10]}"
    )
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
