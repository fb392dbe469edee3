"""Hand-made rows for the report's tests: numbers nobody measured."""

from stretchysnake.results.rows import Row

DATASET = "motion-digits/short"


def cell(model, num_frames, size, value, *, seed=0, dataset=DATASET, gflops=1.0, **changes) -> Row:
    at_home = (num_frames, size) == (8, 32)
    plain = {
        "run_id": "hand-made",
        "protocol": "retrieval",
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "num_frames": num_frames,
        "size": size,
        "patch_size": 8,
        "metric": "top1",
        "value": value,
        "status": "oom" if value is None else "ok",
        "num_queries": 0 if value is None else 400,
        "num_expected": 400,
        "num_gallery": 1600,
        "gflops": gflops,
        "milliseconds": None,
        "trained": at_home,
        "native": at_home and model == "vanilla",
    }
    return Row(**(plain | changes))


def grid(vanilla, static, *, seed=0, **changes) -> list[Row]:
    """Both models at T 8 and 16, S 16, 32 and 64; values given in that order."""
    places = [(t, s) for t in (8, 16) for s in (16, 32, 64)]
    rows = []
    for model, values in (("vanilla", vanilla), ("static_tokens", static)):
        for (t, s), value in zip(places, values, strict=True):
            cost = t * s * s / 8192
            rows.append(cell(model, t, s, value, seed=seed, gflops=cost, **changes))
    return rows


VANILLA = (0.20, 0.80, 0.30, 0.10, 0.40, None)
WINS = (0.60, 0.85, 0.70, 0.50, 0.60, 0.55)
LOSES = (0.10, 0.20, 0.10, 0.05, 0.10, 0.15)
