"""A model of ours in mteb: the nine tasks of MVEB(video, v1), for encoders without text, at any scales.

    python examples/mteb_video.py weights.safetensors results/ 8x224 16x224

Videos are decoded by us, so the features are those of `stretchysnake embed`, bit for bit. mteb fetches its data sets
itself. Of weights trained on Kinetics-400 say so in `training_datasets`: mteb then marks the tasks made of it.
"""

import sys
import tempfile
from pathlib import Path

import mteb
import numpy as np
from datasets import Video
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

import stretchysnake

KINETICS_400 = {"Kinetics400V", "Kinetics400VA", "Kinetics400ZeroShot", "Kinetics400VAZeroShot"}


class StretchySnakeEncoder(AbsEncoder):
    """Video in, features out; `weights` as everywhere, num_frames and size of the clips (native unless given)."""

    def __init__(
        self, model_name, revision=None, *, device=None, weights, num_frames=None, size=None, **_
    ):
        self.options = {"weights": weights, "num_frames": num_frames, "size": size}

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **_):
        """(n, C) in the order of the data set; RuntimeError where a video cannot be read: a task counts all of them."""
        held = inputs.dataset.cast_column("video", Video(decode=False))["video"]
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                self._file(one, Path(folder, f"{number}.mp4")) for number, one in enumerate(held)
            ]
            found = stretchysnake.embed(paths, **self.options)
        if found.failures:
            raise RuntimeError(
                f"{len(found.failures)} videos cannot be read: {found.failures[0][1]}"
            )
        rows = dict(zip(found.paths, found.features.numpy(), strict=True))
        return np.stack([rows[path] for path in paths])

    def _file(self, one: dict, spare: Path) -> str:
        """The path of a video that a data set holds as {path, bytes}."""
        if one["path"] and Path(one["path"]).is_file():
            return str(Path(one["path"]))
        spare.write_bytes(one["bytes"])
        return str(spare)


def meta(
    weights: str, *, num_frames: int | None = None, size: int | None = None, training_datasets=None
) -> ModelMeta:
    """What mteb wants to know of a model; the scale goes to its `experiment_kwargs`, which file the results apart."""
    model, settings = stretchysnake.open_weights(weights, num_frames=num_frames, size=size)
    scale = {"num_frames": settings.scale.num_frames, "size": settings.scale.size}
    return ModelMeta(
        loader=StretchySnakeEncoder,
        loader_kwargs={"weights": weights, **scale},
        name="stretchysnake/videomamba",
        revision=settings.weights_sha256[:40],
        release_date=None,
        languages=None,
        n_parameters=sum(p.numel() for p in model.parameters()),
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=settings.width,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=training_datasets,
        modalities=["video"],
        experiment_kwargs=scale,
    )


def main(weights: str, out: str, *scales: str) -> None:
    benchmark = mteb.get_benchmark("MVEB(video, v1)")
    for scale in scales or ("native",):
        given = (
            {}
            if scale == "native"
            else dict(zip(("num_frames", "size"), map(int, scale.split("x")), strict=True))
        )
        cache = mteb.ResultCache(out)
        results = mteb.evaluate(meta(weights, **given), benchmark, cache=cache)
        for result in results.task_results:
            print(f"{scale} {result.task_name}: {result.get_score():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
