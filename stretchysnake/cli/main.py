"""The command line: one verb per job. Imports lazily, so that --help answers at once."""

import os
import sys
import warnings

from stretchysnake.cli.allocator import keep_freed_memory
from stretchysnake.cli.verbs import VERBS, verb_module
from stretchysnake.shown import shown, shown_lines

HELP = f"""stretchysnake: one video backbone for any length, any resolution, any budget.

usage: stretchysnake VERB [options]      (stretchysnake VERB --help shows an example)

{chr(10).join(f"  {verb:<12} {does}" for verb, does in VERBS.items())}

  --version    print the version
"""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 2 a mistake of the caller's, 130 Ctrl-C, 143 SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        from stretchysnake import __version__

        print(__version__)
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        verb = shown(verb)
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}"
        print(f"error: verb ({verb}) is not known; {hint}", file=sys.stderr)
        return 2
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # spinning OpenMP pools cost milliseconds a call
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # no file name stops a verb in the middle of its lines
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    as_before = warnings.formatwarning
    if not os.environ.get("STRETCHYSNAKE_TRACEBACK"):
        warnings.formatwarning = _one_line
    try:
        return verb_module(verb).run(rest)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; finished stages are kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from stretchysnake.data.decode_error import DecodeError
        from stretchysnake.train.interrupt import TrainingInterrupted

        if isinstance(error, TrainingInterrupted):
            print(f"\n{shown_lines(error)}", file=sys.stderr)
            return error.exit_code
        expected = isinstance(error, (ValueError, RuntimeError, OSError, DecodeError))
        if not expected or os.environ.get("STRETCHYSNAKE_TRACEBACK"):
            raise
        print(f"error: {_said(error)}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = as_before


def _one_line(message, category, filename, lineno, line=None) -> str:
    """A warning without the line of ours that it came from."""
    return f"warning: {shown_lines(message)}\n"


def _said(error: Exception) -> str:
    """An error in words; the operating system's name the file first and leave its number out."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"file ({shown(error.filename)}): {error.strerror.lower()}"
    # a line end in our own messages belongs to a file's name
    return shown_lines(error) if isinstance(error, RuntimeError) else shown(error)
