"""fp32, bf16 and int8 of VideoMamba on the CPU, in turns in one run: time, and how near the features stay.

    OMP_WAIT_POLICY=passive python benchmarks/narrow.py [--threads 2] [--repeats 5] [--models tiny,8 middle,16]
        [--out benchmarks/results/narrow.json]

The gate, before anything is timed: bf16 features of the nano model within 3e-2 of fp32 ones and int8 within 2e-1
(relative norm); int8 sums equal integers exactly.
The floor of a pass, printed beside the times: operations of the products with in_proj and out_proj (what narrow
numbers make quicker), operations of all the rest, which stay fp32, and the bytes of the rows that go between them
(xz, u twice, y, the residual and its norm: 2 bytes for 4 in bf16). With products r times quicker, and a share s of
fp32's time in them, no more than 1 - s + s / r of its time can be had; s is measured (products alone, same shapes).
Times are medians of processor time, which other work on the machine inflates less than the clock's, and of the clock.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake import VideoMamba, VideoMambaConfig, keep_freed_memory
from stretchysnake.eval.features.placed_model import inference, placed
from stretchysnake.eval.features.placement import PRECISIONS, Placement
from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.flexibility import Scale
from stretchysnake.ops.narrow_products.bf16 import has_bf16_products
from stretchysnake.ops.narrow_products.int8 import int8_linear, int8_weight
from stretchysnake.results.rows import environment

BOUNDS = {"bf16": 3e-2, "int8": 2e-1}


def features(model, video, precision: str) -> torch.Tensor:
    placed(model, Placement(device="cpu", precision=precision))
    with inference(model):
        return model.features(video).float()


def gate() -> dict[str, float]:
    """Errors of the nano features against fp32; the sums of int8 products against whole numbers."""
    torch.manual_seed(0)
    model, video = VideoMamba(VideoMambaConfig.named("nano")).eval(), torch.randn(2, 3, 8, 32, 32)
    wanted = features(model, video, "fp32")
    errors = {
        name: float((features(model, video, name) - wanted).norm() / wanted.norm())
        for name in BOUNDS
    }
    assert all(errors[name] < bound for name, bound in BOUNDS.items()), errors
    x, weight = torch.randint(-63, 64, (37, 96)).float(), torch.randint(-127, 128, (72, 96)).float()
    x[:, 0], weight[:, 0] = 63, 127  # steps of 1
    assert torch.equal(int8_linear(x, int8_weight(weight), None), x @ weight.T)
    return errors


def timed(work) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.process_time() - processor), 1e3 * (time.perf_counter() - clock)


def outer_products(config: VideoMambaConfig, tokens: int):
    """A callable that does in_proj and out_proj of every layer in fp32 and nothing else; its operations."""
    width, inner = config.embed_dim, config.expand * config.embed_dim
    x, y = torch.randn(tokens, width), torch.randn(tokens, inner)
    into, out = torch.randn(2 * inner, width), torch.randn(width, inner)

    def work():
        for _ in range(config.depth):
            F.linear(x, into)
            F.linear(y, out)

    return torch.inference_mode()(work), config.depth * 6 * tokens * width * inner


def row_bytes(config: VideoMambaConfig, tokens: int) -> int:
    """Of fp32 rows written by one operation and read by another, each way once."""
    width, inner = config.embed_dim, config.expand * config.embed_dim
    return config.depth * tokens * 2 * 4 * (2 * inner + 2 * inner + inner + 3 * width)


def compared(name: str, frames: int, repeats: int) -> dict:
    torch.manual_seed(0)
    model = VideoMamba(VideoMambaConfig.named(name)).eval()
    video = torch.randn(1, 3, frames, 224, 224)
    tokens = 1 + frames * 14 * 14
    products, operations = outer_products(model.config, tokens)
    found = {precision: features(model, video, precision) for precision in PRECISIONS}  # warm
    passes = {precision: [] for precision in (*PRECISIONS, "products")}
    for _ in range(repeats):
        for precision in PRECISIONS:
            model.precision = precision  # placed anew, the narrow weights would be made anew
            with inference(model):
                passes[precision].append(timed(lambda: model.features(video)))
        passes["products"].append(timed(products))
    all_operations = count_flops(
        model.config, Scale(num_frames=frames, size=224, patch_size=model.config.patch_size)
    )
    wide = {
        kind: [times[at] for times in passes["fp32"]] for at, kind in enumerate(("cpu", "wall"))
    }
    result = {
        "operations_of_products": operations,
        "other_operations": all_operations - operations,
        "bytes_between_fp32": row_bytes(model.config, tokens),
        "bytes_between_bf16": row_bytes(model.config, tokens) // 2,
    }
    for precision, times in passes.items():
        row = {}
        for at, kind in enumerate(("cpu", "wall")):
            own = [one[at] for one in times]
            row[f"{kind}_ms"] = statistics.median(own)
            ratios = [a / b for a, b in zip(own, wide[kind], strict=True)]  # of the same round
            row[f"{kind}_over_fp32"] = statistics.median(ratios)
        if precision in found:
            row["cosine"] = float(F.cosine_similarity(found[precision], found["fp32"]).min())
        result[precision] = row
        print(f"{name} {frames}x224 {precision:9}" + "".join(f"  {k} {v:.4g}" for k, v in row.items()))  # fmt: skip
    share = result["products"]["cpu_over_fp32"]
    print(
        f"  products: {operations / 1e9:.4g} of {all_operations / 1e9:.4g} GFLOP and {share:.2f} of fp32's time; with "
        f"products 2.3 times quicker no less than {1 - share + share / 2.3:.2f} of it"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["tiny,8", "middle,16"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/narrow.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    errors = gate()
    print(f"gate: {errors}; this processor multiplies bf16: {has_bf16_products()}")
    written = {
        "environment": environment(),
        "bf16_products": has_bf16_products(),
        "threads": options.threads,
        "repeats": options.repeats,
        "errors": errors,
        "models": {},
    }
    for model in options.models:
        name, frames = model.split(",")
        written["models"][f"{name} {frames}x224"] = compared(name, int(frames), options.repeats)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
