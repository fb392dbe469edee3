"""Features of many videos on a Ray cluster, as Parquet files; videos that cannot be read have a reason instead.

    python examples/ray_embed.py weights.safetensors videos.txt features/

Every block is one call of `stretchysnake.embed`: its decoders are processes of their own, so a file that kills one is
left out, and the actors live.
"""

import sys

import numpy as np
import ray

import stretchysnake
from stretchysnake.search.named_videos import videos_named


def main(weights: str, videos: str, out: str, videos_at_once: int = 64) -> None:
    def embed_block(block: dict) -> dict:
        found = stretchysnake.embed(list(block["path"]), weights=weights, num_workers=1)
        paths = [*found.paths, *(path for path, _ in found.failures)]
        rows = [*found.features.numpy(), *(np.zeros(0, np.float32) for _ in found.failures)]
        failures = [""] * len(found.paths) + [reason for _, reason in found.failures]
        return {"path": paths, "features": [row.tolist() for row in rows], "failure": failures}

    paths = [{"path": video.path} for video in videos_named(videos, absolute=True)]
    blocks = ray.data.from_items(paths).map_batches(embed_block, batch_size=int(videos_at_once))
    blocks.write_parquet(out)
    print(f"{len(paths)} videos in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
