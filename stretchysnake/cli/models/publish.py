"""`stretchysnake publish`: a folder of save_pretrained on the Hub."""

from dataclasses import dataclass
from pathlib import Path

from stretchysnake.cli.options import parsed
from stretchysnake.shown import shown

EXAMPLES = "stretchysnake publish my-model/ org/name --send true"


@dataclass(frozen=True, kw_only=True)
class PublishRun:
    """Put a folder of save_pretrained into a repository of the Hub. Without --send it only says what it would do.

    The token is the one of `hf auth login`, or HF_TOKEN.
    """

    send: bool = False
    """Send it."""
    public: bool = False
    """A repository that is made now can be seen by all; else only by you."""


def run(argv: list[str]) -> int:
    run, given = parsed("publish", PublishRun, EXAMPLES, argv, paths="DIR org/name")
    if len(given) != 2 or given[1].count("/") != 1:
        raise ValueError(
            f"publish ({' '.join(given)}) must name a folder and a repository: DIR org/name"
        )
    from stretchysnake.models.weights.files import NOT_STATED
    from stretchysnake.models.weights.from_file import model_of
    from stretchysnake.models.weights.published.hub import send
    from stretchysnake.models.weights.published.pretrained import CARD, PARTS, model_in_folder

    folder, repo = Path(given[0]), given[1]
    model, _ = model_of(model_in_folder(folder))  # what cannot be loaded is not published
    missing = [name for name in PARTS if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"folder ({folder}) lacks {', '.join(missing)}; write it with model.save_pretrained"
        )
    for name in PARTS:
        print(shown(f"{name}: {(folder / name).stat().st_size} bytes"))
    if model.trained.get("licence", NOT_STATED) == NOT_STATED:
        print(
            f"licence: not stated; say it in {CARD} (license: ...), or nobody may use the weights"
        )
    if not run.send:
        print(f"nothing was sent; to put it into {repo}: --send true")
        return 0
    print(send(folder, PARTS, repo, private=not run.public))
    return 0
