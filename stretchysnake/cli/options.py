"""How every verb reads its words, and says what it did not read."""

import os
import sys
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

from stretchysnake.shown import shown

VIDEOS = "videos, folders of them, or lists"


def parsed(
    verb: str,
    run_class: type | tuple[type, ...],
    examples: str,
    argv: list[str],
    *,
    paths: str | None = None,
    defaults: object = None,
    short: dict[str, str] | None = None,
):
    """(run, positional paths) of a verb, from the command line, --config YAML and the recipe `defaults`.

    Of several classes the fields of all are options, and the run is a tuple of one value each; the first has the words
    of --help. `paths` says there what the positional words are; None: there are none. `short` names options by a
    letter: {"-o": "--out"}.
    """
    try:
        from argparse import RawDescriptionHelpFormatter

        from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings
    except ImportError:
        raise RuntimeError(
            "the command line needs jsonargparse: pip install 'jsonargparse[signatures]'"
        ) from None

    classes = run_class if isinstance(run_class, tuple) else (run_class,)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the words under each field

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keeps the lines of the example."""

    parser = ArgumentParser(
        formatter_class=Formatter,
        prog=f"stretchysnake {verb}",
        description=f"{(classes[0].__doc__ or '').strip()}\n\nexample:\n  {examples}",
        exit_on_error=True,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these fields")
    if paths is not None:
        parser.add_argument("paths", nargs="+", type=str, help=paths)
    words = [(short or {}).get(word, word) for word in argv]
    # also where nothing is taken from them here: the parser's own words name neither the file nor a way out
    configs = [_values_in(path) for path in _config_files(words)]
    changed = {}
    for one in classes:
        if any(field.type == "BackboneConfig" for field in fields(one)):
            words, one, changed = _with_model(one, defaults, words, configs)
        parser.add_class_arguments(one)
    parser.set_defaults({**({} if defaults is None else asdict(defaults)), **changed})
    values = dict(vars(parser.instantiate(parser.parse_args(words))))
    values.pop("config", None)
    given = values.pop("paths", [])
    values = {name: _at_home(value) for name, value in values.items()}
    if "weights" in values and verb not in _READ_WEIGHTS_THEMSELVES:
        values["weights"] = fetched(values["weights"])
    runs = tuple(one(**{f.name: values[f.name] for f in fields(one)}) for one in classes)
    run = runs if isinstance(run_class, tuple) else runs[0]
    return run, [_at_home(path) for path in given]


def _with_model(
    run_class: type, defaults: object, words: list[str], configs: list
) -> tuple[list[str], type, dict]:
    """(words without `--model NAME`, the run's type with the fields of that model, defaults that follow from it).

    Without a name, `model.architecture` of a --config file (`configs` hold what they say) or else the recipe's model
    says which fields there are.
    """
    from stretchysnake.flexibility import sets_around
    from stretchysnake.models.architectures import config_named

    words, name = list(words), None
    for place, word in enumerate(words):
        if word == "--model" and place + 1 < len(words):
            name = words[place + 1]
            del words[place : place + 2]
            break
        if word.startswith("--model="):
            name = words.pop(place).removeprefix("--model=")
            break
    model = run_class(data="", out="").model if defaults is None else defaults.model
    name, before = name or _architecture_in(configs), model
    if name is not None:
        model = config_named(name, num_classes=model.num_classes)
    changed = {"model": asdict(model)} if model != before else {}
    if model.native != before.native:
        changed["sets"] = asdict(sets_around(model.native))
    # jsonargparse reads the fields of a nested dataclass from its annotation
    typed = {
        "__annotations__": {"model": type(model)},
        "model": field(default_factory=lambda: model),
        "__post_init__": lambda self: None,
        "__doc__": run_class.__doc__,
        "__module__": run_class.__module__,
    }
    run_type = dataclass(frozen=True, kw_only=True)(type(run_class.__name__, (run_class,), typed))
    return words, run_type, changed


def _architecture_in(configs: list) -> str | None:
    """`model.architecture` of the last config that says one."""
    for values in reversed(configs):
        model = values.get("model") if isinstance(values, dict) else None
        if isinstance(model, dict) and "architecture" in model:
            return str(model["architecture"])
    return None


def _config_files(words: list[str]) -> list[str]:
    given = [after for word, after in pairwise(words) if word == "--config"]
    given += [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    return [path for path in given if os.path.isfile(path)]


def _values_in(path: str):
    """What a YAML file holds; ValueError where it is none."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"config ({path}) must be a YAML file with a `field: value` a line, as --print_config writes it: "
            f"{' '.join(str(error).split())}"
        ) from None


def tell_passed_over(sources: list[str], *, classes: bool = False, file=None) -> None:
    """Print what lies in these folders, or stands in these lists, and was not read; nothing when that is nothing."""
    from stretchysnake.data.records import passed_over

    told = str(passed_over(sources, classes=classes))
    if told:
        print(shown(told), file=file)


_READ_WEIGHTS_THEMSELVES = ("train", "study")
"""A training notes the name in its folder; the study takes a folder of many files."""


def fetched(weights):
    """Weights by name (one, several or none) as files, each said once with its source; paths as they are."""
    if isinstance(weights, list):
        return [fetched(one) for one in weights]
    if weights is None or os.path.exists(weights):
        return weights
    from stretchysnake.models.weights.published.named import located

    found = located(weights)
    if found.said is not None and os.environ.get("RANK", "0") == "0":
        print(shown(f"weights {weights}: {found.said}"), file=sys.stderr)
    return str(found.path) if found.said is not None else weights


def _at_home(value):
    """A text that begins with ~/ as a path: a shell leaves it so behind a `=`, and a YAML file always does."""
    is_home = isinstance(value, str) and value.startswith("~/")
    return os.path.expanduser(value) if is_home else value
