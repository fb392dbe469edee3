"""The quickstart, shrunk: all six methods from generated videos to the report."""

from pathlib import Path

import pytest

from stretchysnake import VARIANTS
from stretchysnake.recipes.quickstart import QuickstartRun, quickstart
from stretchysnake.results.rows import read_rows

pytestmark = pytest.mark.xdist_group("quickstart")  # its fixtures are made once, by one process


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    run = QuickstartRun(
        out=str(tmp_path_factory.mktemp("quickstart")),
        methods=tuple(VARIANTS),
        steps=2,
        batch_size=2,
        suites=("short", "fine", "long"),
        frames=(4, 8),
        sizes=(16, 32),
        source_clips=40,
        gallery_clips=24,
        query_clips=24,
        jobs=1,
    )
    return run, quickstart(run)


def test_all_six_methods_train_sweep_and_show(shrunk):
    run, (report, headlines) = shrunk
    rows = read_rows(f"{run.out}/rows.jsonl")
    assert len(rows) == 6 * 3 * 4
    assert {row.model for row in rows} == set(VARIANTS)
    assert all(row.status == "ok" and row.num_queries == 24 for row in rows)
    assert len(headlines) == 3
    page = Path(report).read_text()
    assert "static tokens" in page.lower()


def test_second_call_repeats_nothing(shrunk):
    run, first = shrunk
    before = Path(run.out, "rows.jsonl").read_text()
    assert quickstart(run)[1] == first[1]
    assert Path(run.out, "rows.jsonl").read_text() == before


def test_a_device_of_no_name_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"device \('gpu'\) must be one of: auto, cpu, cuda"):
        QuickstartRun(out=str(tmp_path / "q"), device="gpu")
    assert not (tmp_path / "q").exists()
