"""examples/mteb_video.py in real mteb, where it is installed: a local task of each of four types."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import stretchysnake

pytestmark = pytest.mark.filterwarnings("ignore")  # of others' packages
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mteb_video.py"
SCALE = {"num_frames": 4, "size": 16}


def metadata(name, kind, category, score):
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name, type=kind, category=category, main_score=score, modalities=["video"],
        description="Videos of this test.", reference=None, eval_splits=["test"], eval_langs=["eng-Latn"],
        dataset={"path": "none/none", "revision": "1"}, date=("2020-01-01", "2020-01-01"),
        domains=["Web"], task_subtypes=["Activity recognition"], license="cc0-1.0", dialect=[],
        annotations_creators="derived", sample_creation="found", bibtex_citation="",
    )  # fmt: skip


def of_videos(**columns):
    from datasets import Dataset, Video

    held = Dataset.from_dict(columns)
    for name in columns:
        if name.startswith("video"):
            held = held.cast_column(name, Video())
    return held


def task_of(kind, gallery, queries):
    """A task of mteb on (path, label) pairs, and what its type's main score lies between."""
    import datasets
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.clustering import AbsTaskClustering
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    (paths, labels), (asked, wanted) = zip(*gallery, strict=True), zip(*queries, strict=True)
    test = of_videos(video=list(asked), label=list(wanted))
    columns = {"input_column_name": "video", "label_column_name": "label"}
    if kind == "classification":
        base, told = AbsTaskClassification, ("VideoClassification", "v2c", "accuracy")
        train = of_videos(video=list(paths), label=list(labels))
        held = datasets.DatasetDict(train=train, test=test)
    elif kind == "clustering":
        base, told = AbsTaskClustering, ("VideoClustering", "v2c", "v_measure")
        columns["max_fraction_of_documents_to_embed"] = None
        held = datasets.DatasetDict(test=test)
    elif kind == "pairs":
        base, told = AbsTaskPairClassification, ("VideoPairClassification", "v2v", "max_ap")
        columns = {"input1_column_name": "video1", "input2_column_name": "video2"}
        columns["label_column_name"] = "label"
        same = [int(a == b) for a, b in zip(labels, wanted, strict=True)]
        pairs = of_videos(video1=list(paths), video2=list(asked), label=same)
        held = datasets.DatasetDict(test=pairs)
    else:
        base, told = AbsTaskRetrieval, ("Any2AnyRetrieval", "v2v", "map_at_10")
        columns = {}
        held = {
            "corpus": of_videos(id=[f"d{i}" for i in range(len(paths))], video=list(paths)),
            "queries": of_videos(id=[f"q{i}" for i in range(len(asked))], video=list(asked)),
            "relevant_docs": {
                f"q{q}": {f"d{d}": 1 for d, label in enumerate(labels) if label == want}
                for q, want in enumerate(wanted)
            },
            "top_ranked": None,
        }
        held = {"default": {"test": held}}

    def load_data(self, **_):
        self.dataset, self.data_loaded = held, True

    fields = {"metadata": metadata(f"Local {kind}", *told), "load_data": load_data, **columns}
    return type("LocalTask", (base,), fields)()


@pytest.mark.parametrize("kind", ["classification", "clustering", "pairs", "retrieval"])
def test_a_local_task_gets_the_features_of_embed(
    kind, trained, clip_folder, query_folder, monkeypatch
):
    mteb = pytest.importorskip("mteb")  # which asks for torchcodec too; our encoder does not
    from datasets import Video

    spec = importlib.util.spec_from_file_location("mteb_video", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    seen, encode = [], example.StretchySnakeEncoder.encode

    def watched(self, inputs, **options):
        features = encode(self, inputs, **options)
        videos = inputs.dataset.cast_column("video", Video(decode=False))["video"]
        seen.append(([one["path"] for one in videos], features))
        return features

    monkeypatch.setattr(example.StretchySnakeEncoder, "encode", watched)
    gallery, queries = (
        [
            (str(path), int(path.parent.name.removeprefix("class")))
            for path in sorted(folder.rglob("*.mp4"))
        ]
        for folder in (clip_folder, query_folder)
    )
    # every second pair is of two classes
    queries = [queries[(i + 4 * (i % 2)) % len(queries)] for i in range(len(queries))]
    task = task_of(kind, gallery, queries)
    weights = str(trained[1].weights)
    results = mteb.evaluate(example.meta(weights, **SCALE), task, cache=None)
    assert 0 <= results.task_results[0].scores["test"][0]["main_score"] <= 1
    embedded = stretchysnake.embed([p for p, _ in [*gallery, *queries]], weights=weights, **SCALE)
    of_path = dict(zip(embedded.paths, embedded.features.numpy(), strict=True))
    assert seen
    for paths, features in seen:
        assert np.array_equal(features, np.stack([of_path[path] for path in paths]))
