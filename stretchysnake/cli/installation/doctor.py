"""`stretchysnake doctor`: what this installation can and cannot do."""

EXAMPLES = "stretchysnake doctor"


def run(argv: list[str]) -> int:
    from stretchysnake.cli.installation.checks import doctor

    if argv in (["-h"], ["--help"]):
        print(f"What this installation can and cannot do.\n\nexample:\n  {EXAMPLES}")
        raise SystemExit(0)
    if argv:
        raise ValueError(f"doctor ({' '.join(argv)}) takes no arguments")
    sound, lines = doctor()
    print(*lines, sep="\n")
    return 0 if sound else 1
