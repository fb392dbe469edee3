"""How the patch embedding's length and direction change when the kernel is resized, in the three modes.

    python benchmarks/patch_resize.py [--out benchmarks/results/patch_resize.json]

Smooth random kernels (16×16, made by enlarging 4×4 noise) meet smooth random images; the image patch and
the kernel are resized together, and the response is compared with the one at 16 px. Ideal: ratio 1, cosine 1.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake.models.resample import PATCH_RESIZES, resize_patch_kernel
from stretchysnake.results.rows import environment

NATIVE, PATCHES = 16, (6, 7, 8, 9, 12, 14, 16, 20, 27, 32)


def smooth(*shape: int, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(*shape, 4, 4, generator=generator)
    return F.interpolate(noise, size=(NATIVE, NATIVE), mode="bicubic", align_corners=False)


def responses(kernel: torch.Tensor, patches: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Embeddings (n, C) of the patches resized to `size`, by the kernel resized to it."""
    seen = F.interpolate(patches, size=(size, size), mode="bilinear", antialias=True)
    resized = resize_patch_kernel(kernel.unsqueeze(2), size, mode=mode)[:, :, 0]
    return torch.einsum("ncij,kcij->nk", seen, resized)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/patch_resize.json"))
    out = parser.parse_args().out
    generator = torch.Generator().manual_seed(0)
    kernel = smooth(192, 3, generator=generator)
    patches = smooth(256, 3, generator=generator)
    native = responses(kernel, patches, NATIVE, "bicubic")
    for mode in PATCH_RESIZES:  # the gate: at the native size nothing may change
        assert torch.equal(responses(kernel, patches, NATIVE, mode), native)
    rows = []
    print(
        f"{'P':>3} {'(P/16)²':>8}"
        + "".join(f" {mode + ' norm':>13} {'cosine':>7}" for mode in PATCH_RESIZES)
    )
    for size in PATCHES:
        line = f"{size:3d} {(size / NATIVE) ** 2:8.3f}"
        for mode in PATCH_RESIZES:
            found = responses(kernel, patches, size, mode)
            ratio = (found.norm(dim=1) / native.norm(dim=1)).median().item()
            cosine = F.cosine_similarity(found, native, dim=1).median().item()
            rows.append({"patch": size, "mode": mode, "norm_ratio": ratio, "cosine": cosine})
            line += f" {ratio:13.3f} {cosine:7.4f}"
        print(line)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
