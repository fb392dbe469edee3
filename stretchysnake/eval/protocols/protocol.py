"""What is measured in one cell, as values of every query: retrieval or probe on features, or a trained head's answers.

To add a protocol on features: one name in KINDS and one branch of `measure`; it sees two FeatureSets, never a model.
The protocols of HEADS test the classifier that the weights hold (classify.py): only how it was trained differs ("head":
with the backbone, from the start).
"""

import hashlib
import json
from dataclasses import dataclass, replace

from torch import Tensor

from stretchysnake.data.clips.seen_picture import shown_fit
from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.eval.protocols.classify import Answers
from stretchysnake.eval.protocols.nearest import SIMILARITIES
from stretchysnake.eval.protocols.probe import probe
from stretchysnake.eval.protocols.retrieval import check_metrics, retrieve, shared_places
from stretchysnake.eval.protocols.self_matches import refusal
from stretchysnake.results.comparison import pack_correct
from stretchysnake.results.intervals import bootstrap_interval, wilson_interval

HEADS = ("finetune", "probe-sgd", "head")
KINDS = ("retrieval", "probe", *HEADS)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of measuring features, and the metrics it gives."""

    kind: str = "retrieval"
    metrics: tuple[str, ...] = ("top1",)
    """Names of retrieval.METRICS; the others give top1."""
    similarity: str = "cosine"
    group_safe: bool = False
    """Retrieval drops the gallery videos of a query's own group."""
    allow_self: bool = False
    """Queries may be videos of the gallery, which retrieval then leaves out of their own ranking; else refused."""
    num_views: int = 1
    """Clips of each video: of HEADS the class probabilities are averaged, of retrieval the features."""
    num_crops: int = 1
    """1 (middle) or 3 squares of each picture; of HEADS."""
    picture: str | None = None
    """"whole" or "centre", where it or a square is asked for; None: the kind's own (see clip_source.DecodedClips)."""
    sampling: str = "uniform"
    """The name of the rule that chose the frames."""
    fit: str = "square"
    """"keep" where pictures keep their shape; a crop is the picture "centre"."""
    apart: str = ""
    """A word that the rows' protocol ends in, where a recipe keeps numbers apart from others of the same settings."""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"protocol ({self.kind!r}) must be one of: {', '.join(KINDS)}")
        if self.num_views < 1 or self.num_crops not in (1, 3):
            raise ValueError(
                f"num_views ({self.num_views}) must be at least 1, num_crops ({self.num_crops}) 1 or 3"
            )
        crops, views = self.num_crops > 1, self.num_views > 1 and self.kind != "retrieval"
        if (crops or views) and self.kind not in HEADS:
            name, number = ("num_crops", self.num_crops) if crops else ("num_views", self.num_views)
            raise ValueError(
                f"{name} ({number}) belongs to {', '.join(HEADS)}; {self.kind} takes "
                f"{'the whole picture' if crops else 'one view'}: leave it at 1"
            )
        if self.kind != "retrieval":
            if self.metrics != ("top1",):
                raise ValueError(
                    f"metrics ({', '.join(self.metrics)}) of {self.kind} must be top1 alone"
                )
            if self.similarity != "cosine" or self.group_safe:
                raise ValueError(
                    f"similarity and group_safe belong to retrieval; {self.kind} has neither"
                )
        else:
            check_metrics(self.metrics)
        if self.similarity not in SIMILARITIES:
            raise ValueError(
                f"similarity ({self.similarity!r}) must be one of: {', '.join(SIMILARITIES)}"
            )

    @property
    def name(self) -> str:
        """The row's protocol: the kind, and every setting without which two numbers cannot be compared."""
        settings = ["l2"] if self.similarity == "l2" else []
        settings += ["group-safe"] if self.group_safe else []
        usual = "centre" if self.kind in HEADS else "whole"
        kept = self.fit == "keep"  # whole by itself
        settings += [self.picture] if self.picture not in (None, usual) and not kept else []
        settings += [self.fit] if kept else []
        settings += [self.sampling] if self.sampling != "uniform" else []
        if self.num_views > 1 and self.kind not in HEADS:  # of HEADS the note tells them
            settings.append(f"{self.num_views}-views")
        settings += [self.apart] if self.apart else []
        return "-".join([self.kind, *settings])

    def shown_picture(self, clips) -> str:
        """What this protocol sees of the frames of a clip source."""
        return clips.picture or ("centre" if self.kind in HEADS else "whole")

    def shown_fit(self, clips) -> str:
        """How that is fitted into the clips."""
        return shown_fit(self.shown_picture(clips), clips.fit)

    def only(self, metrics) -> "Protocol":
        """The same protocol with some of its metrics."""
        return replace(self, metrics=tuple(metrics))

    def measure(self, gallery: FeatureSet, queries: FeatureSet) -> list[tuple[str, Tensor, str]]:
        """(metric, value of every query, note) for each metric; see `retrieve` and `probe`."""
        same = shared_places(gallery, queries)
        if same and not self.allow_self:
            raise ValueError(refusal(len(same), len(queries.paths), queries.paths[same[0]]))
        if self.kind == "probe":
            return [("top1", *probe(gallery, queries))]
        measured = retrieve(
            gallery,
            queries,
            self.metrics,
            similarity=self.similarity,
            group_safe=self.group_safe,
            leave_out_self=bool(same),
        )
        return [(metric, values, "") for metric, values in measured.items()]


def measured_fields(values: Tensor, queries: FeatureSet | Answers) -> dict:
    """The fields of a Row that the values (n,) of these `queries` determine: mean, interval, who was right."""
    share = values.dtype.is_floating_point is False
    n, numbers = len(values), values.double().tolist()
    interval = wilson_interval(int(values.sum()), n) if share else bootstrap_interval(numbers)
    listed = list(zip(queries.paths, queries.labels.tolist(), strict=True))
    if any(
        segment != (None, None) for segment in queries.segments
    ):  # parts of a file are other queries
        listed = list(zip(listed, queries.segments, strict=True))
    return {
        "value": sum(numbers) / n,
        "low": interval.low,
        "high": interval.high,
        "correct": pack_correct(values.tolist()) if share else "",
        "queries": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
        "num_queries": n,
        "num_expected": queries.num_expected,
    }
