"""docs/elsewhere.md runs, where its packages are installed: every store finds the rows that are nearest."""

import re
from pathlib import Path

import numpy as np
import pytest

from stretchysnake.search.embed import embed_into
from stretchysnake.search.index import read_index

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "elsewhere.md").read_text(encoding="utf-8")
FIRST, *STORES = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def index(trained, clip_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    embed_into(folder / "index", clip_folder, weights=trained[1].weights, num_frames=4, size=16)
    return folder


def test_the_first_lines_read_an_index(index, monkeypatch):
    monkeypatch.chdir(index)
    values = {}
    exec(FIRST, values)
    assert values["features"].shape == (12, 64) and values["query"].shape == (64,)
    assert {"path", "start", "end", "class_name", "sha256"} <= values["rows"][0].keys()
    assert len(STORES) == 3


@pytest.mark.filterwarnings("ignore")  # of others' packages
@pytest.mark.parametrize("source", STORES, ids=["lancedb", "qdrant_client", "chromadb"])
def test_a_store_finds_the_nearest_rows(source, index, monkeypatch):
    pytest.importorskip(re.search(r"^(?:import|from) (\w+)", source)[1])
    monkeypatch.chdir(index)
    values = {}
    exec(FIRST, values)
    exec(source, values)
    held = read_index(index / "index")
    unit = held.features / np.linalg.norm(held.features, axis=1, keepdims=True)
    nearest = (unit @ unit[0]).argsort()[::-1][:5]
    assert values["places"] == [held.rows[number].file.path for number in nearest]


def test_links_point_at_files():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert len(links) == 2 and all((ROOT / "docs" / link).exists() for link in links)
