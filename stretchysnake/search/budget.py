"""A budget in words, "20 GFLOPs", "50 ms" or "2 GB", as a number. Imports no torch."""

import re
from dataclasses import dataclass

UNITS = {
    "gflops": {"mflops": 1e-3, "gflops": 1.0, "tflops": 1e3},
    "milliseconds": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "mebibytes": {"mb": 1e6 / 2**20, "gb": 1e9 / 2**20, "mib": 1.0, "gib": 1024.0},
}
SHOWN = {"gflops": "GFLOPs", "milliseconds": "ms", "mebibytes": "MiB"}


@dataclass(frozen=True)
class Budget:
    """What one clip may cost."""

    kind: str
    """"gflops", "milliseconds" or "mebibytes"."""
    limit: float

    def __str__(self) -> str:
        return f"{self.limit:.4g} {SHOWN[self.kind]}"


def parse_budget(text: str) -> Budget:
    """The budget of a number and a unit; ValueError lists the units."""
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*([A-Za-z]+)\s*", text)
    if match:
        for kind, units in UNITS.items():
            factor = units.get(match[2].lower())
            try:
                number = float(match[1])
            except ValueError:
                break
            if factor is not None and 0 < number < float("inf"):
                return Budget(kind, number * factor)
    raise ValueError(
        f'budget ({text}) must be a positive number and a unit, e.g. "20 GFLOPs", "50 ms" or "2 GB"; units: '
        "MFLOPs GFLOPs TFLOPs us ms s MB GB MiB GiB"
    )
