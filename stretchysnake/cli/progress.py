"""How far a verb is: lines, or a training's live bar on a terminal; rich is an extra and imported here alone."""

import sys
import time

from stretchysnake.shown import shown


class Progress:
    """Prints a line over itself on a terminal, and one line every ten seconds elsewhere."""

    def __init__(self):
        self.terminal, self.printed, self.open = sys.stderr.isatty(), 0.0, False

    def __call__(self, text: object) -> None:
        """Print a text, or the text of a report."""
        text = shown(text)
        if self.terminal:
            print(f"\r\x1b[K{text[:150]}", end="", file=sys.stderr, flush=True)
            self.open = True
        elif time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False


class ProgressBar:
    """Shows the reports of a training (train/watch/meter.py) as one bar; any other text stands there until then."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        fields = (
            "{task.fields[name]}", "{task.completed}/{task.total}", "loss {task.fields[loss]}",
            "lr {task.fields[lr]}", "{task.fields[scale]}", "{task.fields[speed]} clips/s",
            "waits {task.fields[wait]}", "{task.fields[memory]}", "{task.fields[left]} left",
        )  # fmt: skip
        columns = [TextColumn(field, markup=False) for field in fields]
        self._progress = Progress(columns[0], BarColumn(bar_width=None), *columns[1:],
                                  console=Console(stderr=True), expand=True)  # fmt: skip
        self._status = Progress(
            TextColumn("{task.description}", markup=False), console=self._progress.console
        )
        self._shown, self._task = None, None

    def __call__(self, report) -> None:
        """`report` is a StepReport, or a text."""
        if isinstance(report, str):
            self._show(self._status, description=shown(report))
            return
        scale, left = report.scale, int(report.seconds_left)
        self._show(
            self._progress,
            completed=report.step,
            total=report.steps,
            name=report.name,
            loss=f"{report.loss:.3f}",
            lr=f"{report.lr:.1e}",
            scale=f"T={scale.num_frames} S={scale.size} P={scale.patch_size}",
            speed=f"{report.clips_per_second:.0f}",
            wait=f"{report.data_wait:.0%}"
            + (f", {report.bad_share:.1%} bad" if report.bad_share else ""),
            memory=f"{report.memory / 2**30:.1f} GiB",
            left=f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}",
        )

    def close(self) -> None:
        """End the bar, leaving its last state on the screen."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _show(self, display, **values) -> None:
        if self._shown is not display:
            self.close()
            self._shown = display
            self._task = display.add_task(values.pop("description", ""), **values)
            display.start()
        display.update(self._task, **values)


def bar_is_possible() -> bool:
    """Whether standard error is a terminal and rich is installed."""
    if not sys.stderr.isatty():
        return False
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True
