"""Seconds by stage of a recipe."""

import time


class Stopwatch:
    """`lap(stage)` adds the time since the last lap to that stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._started, 1)
        self._started = now
