"""`stretchysnake weights`: which weights there are by name, the package's own and published ones, fetched, checked."""

from dataclasses import dataclass

from stretchysnake.cli.options import parsed
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake weights\n"
    "  stretchysnake weights get videomamba-m-k400-f16 hf://org/name/model.safetensors@v1\n"
    "  stretchysnake weights check"
)
ACTIONS = ("get", "check")
_WORDS = "(no action: the list), get NAME, check"


@dataclass(frozen=True, kw_only=True)
class GetRun:
    """Fetch weights by name, check their SHA-256, convert and keep them."""

    renew: bool = False
    """Fetch them again, and take what the revision is today, where no hash is published."""


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """Read all weights that are kept, and compare their SHA-256 with what was noted at the first use."""


def run(argv: list[str]) -> int:
    actions = dict(zip(ACTIONS, (_get, _check), strict=True))
    if argv[:1] in (["-h"], ["--help"]):
        print(
            f"usage: stretchysnake weights [{'|'.join(ACTIONS)}] ...\n\n{_WORDS}\n\nexample:\n  {EXAMPLES}"
        )
        raise SystemExit(0)
    if not argv:
        return _list()
    if argv[0] not in actions:
        raise ValueError(f"weights action ({argv[0]}) must be one of: {_WORDS}")
    return actions[argv[0]](argv[1:])


def _list() -> int:
    from stretchysnake.models.weights.published.cache import records, weights_folder
    from stretchysnake.models.weights.published.named import is_here, said
    from stretchysnake.models.weights.published.table import published
    from stretchysnake.models.weights.shipped.shipped import all_shipped

    folder = weights_folder()
    print(f"{'name':<36} {'MB':>5}  {'licence':<12}  {'T x S':>8}  {'here':<4}  trained on")
    for own in all_shipped().values():
        native, megabytes = own.native, f"{own.file.stat().st_size / 1e6:.1f}"
        scale, run = f"{native.num_frames} x {native.size}", own.trained
        told = f"{run['trained_on']}, {run['steps']:,} steps ({run['variant']})"
        print(
            f"{own.name:<36} {megabytes:>5}  {run['licence']:<12}  {scale:>8}  {'yes':<4}  {told}"
        )
    for row in published().values():
        here, size = "yes" if is_here(row.name) else "", row.megabytes or "?"
        scale = f"{row.num_frames} x {row.size}"
        print(
            f"{row.name:<36} {size:>5}  {row.licence:<12}  {scale:>8}  {here:<4}  {row.trained_on}"
        )
    others = [record for record in records(folder) if record.name not in published()]
    for record in others:
        here = "" if record.is_there(folder) else " (not here any more)"
        print(shown(f"{record.name}{here}: {said(record)}"))
    print(
        f"\nany verb takes these as --weights, and hf://org/name[/file][@revision]; kept in {shown(folder)}"
    )
    return 0


def _get(argv: list[str]) -> int:
    from stretchysnake.models.weights.published.named import located

    run, names = parsed(
        "weights get", GetRun, EXAMPLES, argv, paths="names, or hf://org/name[/file][@revision]"
    )
    for name in names:
        found = located(name, renew=run.renew)
        if found.said is None:
            raise ValueError(f"weights ({name}) are a path; get takes a name, or hf://org/name")
        print(shown(f"{name}: {found.said}"), shown(f"  {found.path}"), sep="\n")
    return 0


def _check(argv: list[str]) -> int:
    from stretchysnake.models.weights.published.cache import records, weights_folder
    from stretchysnake.models.weights.shipped.shipped import all_shipped
    from stretchysnake.whole_file import sha256_of

    parsed("weights check", CheckRun, EXAMPLES, argv)
    folder, bad = weights_folder(), 0
    for own in all_shipped().values():
        good = own.file.is_file() and sha256_of(own.file) == own.sha256
        bad += not good
        verdict = (
            "as it came" if good else "CHANGED: not what came with the package; install it again"
        )
        print(shown(f"{own.name}: {verdict}"))
    kept = records(folder)
    for record in kept:
        path = record.file(folder)
        if not path.is_file():
            verdict = "not here any more; the next use fetches it again"
        elif sha256_of(path) != record.path_sha256:
            bad += 1
            verdict = (
                f"CHANGED: not what was kept; delete {path}, and the next use fetches it again"
            )
        else:
            verdict = "as it was kept"
        print(shown(f"{record.name}: {verdict}"))
    print(
        f"{len(all_shipped())} of the package, {len(kept)} weights in {shown(folder)}, {bad} changed"
    )
    return 1 if bad else 0
