"""What a score means: quantiles of the cosines of different videos, against numpy over every pair."""

import numpy as np
import pytest
from hand_made_index import hand_made, numbered

from stretchysnake.search.index import IndexRow, VideoFile
from stretchysnake.search.stores.candidate import Candidate, drawn_numbers
from stretchysnake.search.stores.opening import open_collection
from stretchysnake.search.stores.score_spread import score_spread


def rows_of(*videos):
    """Candidates of (content, angle in degrees) pairs."""
    made = []
    for number, (content, angle) in enumerate(videos):
        file = VideoFile(path=f"/v/{number}.mp4", size=1, mtime_ns=1, sha256=content)
        turned = np.radians(angle)
        features = 3 * np.array([np.cos(turned), np.sin(turned)], dtype=np.float32)
        made.append(Candidate((file.path, 0.0), IndexRow(file=file), features))
    return made


def test_pairs_of_one_video_do_not_count():
    spread = score_spread(rows_of(("a", 0), ("a", 1), ("b", 60), ("c", 90)))
    pairs = np.cos(np.radians([60, 90, 59, 89, 30]))  # all but a with itself
    assert spread.num_pairs == 5
    assert spread.quantile(0) == pytest.approx(pairs.min(), abs=1e-6)
    assert spread.quantile(1) == pytest.approx(np.cos(np.radians(30)), abs=1e-6)
    assert spread.share_below(-1) == 0 and spread.share_below(0.99) == 1
    assert spread.share_below(0.4) == pytest.approx(
        0.25 + 0.25 * (0.4 - pairs[3]) / (0.5 - pairs[3]), abs=0.01
    )
    assert score_spread(rows_of(("a", 0), ("a", 50))) is None and score_spread([]) is None


def test_the_spread_of_an_index_is_that_of_all_its_pairs(tmp_path):
    index = hand_made(tmp_path / "index", numbered(0, 60))
    spread = score_spread(open_collection(str(tmp_path / "index")).drawn(512))
    features = index.features / np.linalg.norm(index.features, axis=1, keepdims=True)
    pairs = (features @ features.T)[np.triu_indices(60, 1)]
    assert spread.num_pairs == len(pairs) == 1770
    for share in (0.01, 0.25, 0.5, 0.99):
        assert spread.quantile(share) == pytest.approx(np.quantile(pairs, share), abs=1e-5)
    for score in (-0.3, 0.1, 0.6):
        assert spread.share_below(score) == pytest.approx((pairs < score).mean(), abs=0.002)
    low, high, top = np.quantile(pairs, [0.25, 0.75, 0.99])
    assert f"score {low:.2f} to {high:.2f}, and 1 of 100 more than {top:.2f}" in str(spread)


def test_rows_are_drawn_from_all_over_and_always_the_same():
    drawn = drawn_numbers(10_000, 512)
    assert drawn == drawn_numbers(10_000, 512) == sorted(set(drawn)) and len(drawn) == 512
    assert np.mean(drawn) == pytest.approx(5000, abs=500) and max(drawn) < 10_000
    assert drawn_numbers(3, 512) == [0, 1, 2]
