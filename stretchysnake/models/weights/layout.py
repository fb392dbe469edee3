"""Where the weights lie in what a checkpoint file holds, under whatever its trainer wrapped around them.

Trainers nest state dicts (model, state_dict, model_state, ema ...), wrappers put a prefix before every name
(module., model., _orig_mod. ...), and beside the weights lie losses, counters and moving averages. Wherever a name
ends as a mark of an architecture does (its model class says which), there is a model; one is taken, and all else is
listed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

Marks = dict[str, tuple[tuple[str, ...], ...]]
"""Architecture -> names of weights that tell it, all under one prefix; one tuple for each published layout."""
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any place."""
_AVERAGE = re.compile(
    r"(^|[/._])(model_)?(ema|averaged?|swa|shadow|teacher)(?![a-z])", re.IGNORECASE
)
_COUNTER = re.compile(r"(^|\.)(total_ops|total_params|n_averaged|num_updates)$")
_TRAINERS = re.compile(r"(criterion|loss|loss_fn|loss_func|metrics?)\.")
"""First parts of names that are no part of a model."""


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The state dict that was taken from a file."""

    part: str
    """Where it lies: keys, and a prefix that only some names have; "" at the top."""
    state: dict[str, Tensor]
    architecture: str
    left_out: list[str]
    """Names of what the file holds beside it."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know: which of several it is, and tensors that were left out."""
    is_known: bool = True
    """False where no architecture's marks were found, so that `architecture` is a guess."""


def weights_in(loaded, path: Path, marks: Marks, *, part: str | None = None) -> FoundWeights:
    """The weights in what a file held; `part` chooses where there are several, as the error or the note names them.

    A model goes before its moving average. ValueError where there are no weights, no such part, or several models.
    The last architecture of `marks` is what a file without any mark is taken for.
    """
    candidates, others = _candidates(loaded, path, marks)
    if not candidates:
        return _unmarked(loaded, path, part, architecture=list(marks)[-1])
    names = [_shown(one.part) for one in candidates]
    listed = ", ".join(names)
    if part is not None:
        if _shown(part) not in names:
            held = listed if names != ["."] else "one model, at its top: leave part out"
            raise ValueError(f"part ({part}) is not in checkpoint ({path}); it holds: {held}")
        taken = candidates[names.index(_shown(part))]
    else:
        models = [one for one in candidates if not _AVERAGE.search(one.part)] or candidates
        if len(models) > 1:
            raise ValueError(
                f"checkpoint ({path}) holds several models: {listed}; choose one with: stretchysnake convert "
                f"{path} --part {_shown(models[0].part)} --out model.safetensors"
            )
        taken = models[0]
    notes = list(taken.notes)
    rest = [one for one in candidates if one is not taken]
    if rest and part is None:
        notes.insert(
            0,
            f"taken: {_shown(taken.part)}; also in the file: {', '.join(_shown(one.part) for one in rest)} "
            "(stretchysnake convert --part NAME takes it)",
        )
    left_out = [*others, *(one.part for one in rest), *taken.left_out]
    return replace(taken, left_out=left_out, notes=notes)


def _candidates(loaded, path: Path, marks: Marks) -> tuple[list[FoundWeights], list[str]]:
    """(every model in there, the names beside the dicts that hold them)."""
    candidates, dicts, homes, joint = [], list(_dicts(loaded, ())), [], []
    for keys, inner in dicts:
        if any(keys[: len(home)] == home for home in joint):
            continue
        if (weights := _joined(keys, inner, marks)) is not None:
            homes.append(keys)
            joint.append(keys)
            candidates.append(weights)
        elif prefixes := _prefixes(inner, marks):
            homes.append(keys)  # a prefix may be ""
            candidates += _models_of(keys, inner, prefixes, path)
    beside = []
    for keys, inner in dicts:
        on_the_way = any(home[: len(keys)] == keys and home != keys for home in homes)
        if on_the_way:
            ways = {home[len(keys)] for home in homes if home[: len(keys)] == keys and home != keys}
            beside += [str(name) for name in inner if str(name) not in ways]
    return candidates, beside


def _joined(keys: tuple[str, ...], inner: dict, marks: Marks) -> FoundWeights | None:
    """A model whose parts lie in dicts side by side (Omnivore's trunk and heads): their names joined by a dot."""
    parts = {str(name): part for name, part in inner.items() if isinstance(part, dict)}
    state = {
        f"{name}.{_plain(key)}": value
        for name, part in parts.items()
        for key, value in part.items()
        if isinstance(value, Tensor)
    }
    if len({name.split(".")[0] for name in state}) < 2:
        return None
    architecture = next(
        (arch for arch, layouts in marks.items() if any({*names} <= {*state} for names in layouts)),
        None,
    )
    if architecture is None:
        return None
    left_out = [str(name) for name in inner if str(name) not in parts]
    part = "/".join(keys)
    return FoundWeights(part=part, state=state, architecture=architecture, left_out=left_out)


def _dicts(loaded, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(keys that lead there, dict) of every dict to a depth of four; tuples and lists count as dicts of numbers."""
    if isinstance(loaded, (tuple, list)) and len(keys) < 4:
        loaded = {str(number): value for number, value in enumerate(loaded)}
    if not isinstance(loaded, dict):
        return
    yield keys, loaded
    if len(keys) < 4:
        for name, inner in loaded.items():
            if isinstance(inner, (dict, tuple, list)):
                yield from _dicts(inner, (*keys, str(name)))


def _prefixes(inner: dict, marks: Marks) -> dict[str, str]:
    """Prefix -> architecture of the models that a dict of tensors holds, wrappers' names taken out.

    Of several whose marks stand there the one with most of them counts (MViT has all of Hiera's names and more). The
    last architecture's marks are looked for only where there are none of the others.
    """
    names = {_plain(name) for name, value in inner.items() if isinstance(value, Tensor)}
    prefixes: dict[str, str] = {}
    counts: dict[str, int] = {}
    *others, last = marks
    for architecture in [*others, last]:
        if architecture == last and prefixes:
            break
        for first, *rest in marks[architecture]:
            for name in names:
                if name == first or name.endswith("." + first):
                    prefix = name.removesuffix(first)
                    complete = all(prefix + other in names for other in rest)
                    if complete and len(rest) > counts.get(prefix, -1):
                        prefixes[prefix], counts[prefix] = architecture, len(rest)
    return prefixes


def _plain(name: object) -> str:
    text = str(name)
    while (shorter := _WRAPPERS.sub(r"\1", text)) != text:
        text = shorter
    return text


def _models_of(
    keys: tuple[str, ...], inner: dict, architectures: dict[str, str], path: Path
) -> Iterator[FoundWeights]:
    """The models of one dict; `architectures` says which stands under which prefix."""
    tensors: dict[str, Tensor] = {}
    for name, value in inner.items():
        if isinstance(value, Tensor):
            if _plain(name) in tensors:
                raise ValueError(f"checkpoint ({path}) holds {_plain(name)} twice, once as {name}")
            tensors[_plain(name)] = value
    texts = [str(name) for name, value in inner.items() if not isinstance(value, Tensor)]
    prefixes = sorted(architectures, key=len, reverse=True)
    shares: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    strays = []
    for name, tensor in tensors.items():
        # the longest prefix first: "ema.model." before "model."
        home = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        bare = name if home is None else name.removeprefix(home)
        if home is None or _COUNTER.search(bare) or (home == "" and _TRAINERS.match(bare)):
            strays.append(name)
        else:
            shares[home][bare] = tensor
    for prefix in reversed(prefixes):
        words = [prefix.rstrip(".")] if len(prefixes) > 1 and prefix else []
        notes = []
        if strays:
            more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
            notes.append(f"left out, no part of the model: {', '.join(strays[:3])}{more}")
        yield FoundWeights(
            part="/".join([*keys, *words]),
            state=shares[prefix],
            architecture=architectures[prefix],
            left_out=[*texts, *strays],
            notes=notes,
        )


def _unmarked(loaded, path: Path, part: str | None, *, architecture: str) -> FoundWeights:
    """Tensors that are no whole model that we know: whoever asked will say what is missing."""
    if part is not None:
        raise ValueError(f"part ({part}) is not in checkpoint ({path}), nor any model that we know")
    left_out: list[str] = []
    for _ in range(3):
        if isinstance(loaded, dict):
            inner = next(
                (k for k in ("model", "module", "state_dict") if isinstance(loaded.get(k), dict)),
                None,
            )
            if inner is None:
                break
            left_out += [str(name) for name in loaded if name != inner]
            loaded = loaded[inner]
    if not isinstance(loaded, dict) or not any(
        isinstance(value, Tensor) for value in loaded.values()
    ):
        raise ValueError(
            f"checkpoint ({path}) holds no weights; a state dict or one under 'model' is needed"
        )
    left_out += [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    state = {_plain(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "model.", "backbone."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return FoundWeights(
        part="", state=state, architecture=architecture, left_out=left_out, is_known=False
    )


def _shown(part: str) -> str:
    return part or "."
