"""What every test shares: fixed seeds, and tests left out where there is no CUDA device or an extra is not installed.

With --every-extra (`make test-extras`) nothing is left out: a skipped test, for whatever reason, is a failed one.
"""

import importlib
import importlib.util
import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed writes down the whole stack where there is no GPU: a millisecond a test
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)


@pytest.fixture(autouse=True)
def no_gpu_unless_marked(request, monkeypatch):
    """Verbs take a GPU where there is one; what tests compare bit for bit is of the CPU."""
    if torch.cuda.is_available() and not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Files that are missing on purpose stay missing; a test of waiting sets its own."""
    monkeypatch.setattr("stretchysnake.data.clips.bad_clips.PAUSES", ())


EXTRAS = {
    "probe": ["sklearn"],
    "report": ["matplotlib", "jinja2"],
    "torchcodec": ["torchcodec"],
    "progress": ["rich"],
    "tensorboard": ["tensorboard"],
    "faiss": ["faiss"],
    "lancedb": ["lancedb", "pyarrow"],
    "hub": ["huggingface_hub"],
    "export": ["onnx", "onnxscript", "onnxruntime"],
}
"""Extra of pyproject.toml -> the packages that tests marked `extra("NAME")` need."""


def why_not(extra: str) -> str | None:
    """Why tests of an extra cannot run here; None where they can."""
    for module in EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'stretchysnake[{extra}]'"
    if extra == "torchcodec":  # there, and useless without FFmpeg's libraries
        try:
            importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            return f"torchcodec is not usable here: {str(error).splitlines()[0]}"
    return None


def pytest_addoption(parser):
    parser.addoption("--every-extra", action="store_true", help="a skipped test is a failed one")


@pytest.hookimpl(tryfirst=True)  # before fixtures are made for a test that cannot run
def pytest_runtest_setup(item):
    for marker in item.iter_markers("extra"):
        if reason := why_not(*marker.args):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return failed_if_skipped(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return failed_if_skipped(report, collector.config)


def failed_if_skipped(report, config):
    """The report; under --every-extra, of a failure where it was of a skip."""
    if config.getoption("--every-extra") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"skipped under --every-extra: {report.longrepr}",
        )
    return report


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
    from stretchysnake.data.decoding.video import write_video

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
