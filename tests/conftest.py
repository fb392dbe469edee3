"""What every test shares: fixed seeds, and `gpu` tests skipped where there is no CUDA device."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A folder with one sub-folder per class: three classes of four 48-px clips of 12 frames, real mp4 files.

    The classes differ in the brightness of a moving square, so that a model can tell them apart.
    """
    return write_clips(tmp_path_factory.mktemp("clips"), seed=0)


@pytest.fixture(scope="session")
def query_folder(tmp_path_factory):
    """Twelve more of the same classes, other files with other pixels: queries for clip_folder as gallery."""
    return write_clips(tmp_path_factory.mktemp("queries"), seed=1)


def write_clips(root, *, seed):
    from stretchysnake.data.video import write_video

    rng = np.random.default_rng(seed)
    for label, brightness in enumerate((60, 140, 230)):
        (root / f"class{label}").mkdir()
        for index in range(4):
            frames = rng.integers(0, 30, (12, 48, 48, 3), dtype=np.uint8)
            for t in range(12):
                frames[t, 2 * t : 2 * t + 16, 4 + index : 28] = brightness
            write_video(root / f"class{label}" / f"{index}.mp4", frames)
    return root


@pytest.fixture(scope="session")
def trained(clip_folder, tmp_path_factory):
    """A TrainRun on clip_folder, six steps long and finished, and its result."""
    from stretchysnake.train.loop import train
    from stretchysnake.train.run import TrainRun

    run = TrainRun(
        data=str(clip_folder), out=str(tmp_path_factory.mktemp("run")), steps=6, batch_size=4
    )
    return run, train(run)
