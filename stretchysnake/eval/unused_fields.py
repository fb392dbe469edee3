"""What a run names that would have no effect, since it leaves out what alone uses it."""

from dataclasses import fields


def refuse_unused(run, owner: str, *names: str) -> None:
    """ValueError for one of these fields of a dataclass that is not as by default, where `owner` is None."""
    if getattr(run, owner) is not None:
        return
    for one in fields(run):
        value = getattr(run, one.name)
        if one.name in names and value != one.default:
            raise ValueError(
                f"{one.name} ({value}) is used with {owner} alone; give {owner} too, or leave it out"
            )
