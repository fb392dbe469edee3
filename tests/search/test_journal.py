"""The journal of an index: what it believes of an earlier, interrupted call."""

import numpy as np
import pytest

from stretchysnake import Scale
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile
from stretchysnake.search.journal import Journal

SETTINGS = IndexSettings(weights_sha256="w", width=4, scale=Scale(4, 32, 8))
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


def row(name):
    return IndexRow(file=VideoFile(path=name, size=1, mtime_ns=2, sha256=name))


@pytest.mark.parametrize(
    ("damaged", "kept"), [(None, "abc"), (40, "ab"), (20, "a"), (3, "")], ids=str
)
def test_rows_are_believed_up_to_the_first_whose_features_are_others(tmp_path, damaged, kept):
    """The file has its length, but a byte of it was never written."""
    with Journal(tmp_path / "out", SETTINGS, "weights") as journal:
        for name, features in zip("abc", FEATURES, strict=True):
            journal.add([row(name)], features[None])
        stored = journal.place / "features.f32"
    content = bytearray(stored.read_bytes())
    assert len(content) == 48
    if damaged is not None:
        content[damaged] ^= 0xFF
        stored.write_bytes(content)
    with Journal(tmp_path / "out", SETTINGS, "weights") as again:
        assert "".join(again.fresh) == kept
        for name, features in zip(kept, FEATURES, strict=False):
            (found,), (values,) = again.video(name)
            assert found == row(name) and np.array_equal(values, features)
