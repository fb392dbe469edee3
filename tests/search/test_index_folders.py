"""A folder of indexes: those of one model at one scale are searched, the others are named."""

import shutil

import pytest
from hand_made_index import hand_made, numbered

from stretchysnake import cli
from stretchysnake.search.embed import embed_into
from stretchysnake.search.index_folders import indexes_in


def test_those_of_one_scale_are_taken_and_the_others_named(tmp_path):
    for name, size in (("a", 64), ("b", 32), ("c", 32), ("d", 32)):
        hand_made(tmp_path / "all" / name, numbered(0, 3), size=size)
    (tmp_path / "all" / "d" / "manifest.json").write_text("{")
    (tmp_path / "all" / "no index").mkdir()
    found, notes = indexes_in([str(tmp_path / "all"), "lancedb:x"])
    assert found == [str(tmp_path / "all" / "b"), str(tmp_path / "all" / "c"), "lancedb:x"]
    first, second = notes
    assert (
        f"index ({tmp_path / 'all' / 'a'}) is left out: scale " in first and "to renew it" in first
    )
    assert f"({tmp_path / 'all' / 'd'}) is left out: of a format that cannot be read" in second
    # one that is named itself stays, whatever it is
    assert indexes_in([str(tmp_path / "all" / "a")]) == ([str(tmp_path / "all" / "a")], [])
    assert indexes_in([str(tmp_path / "absent")]) == ([str(tmp_path / "absent")], [])


def test_weights_choose_among_them_and_say_how_to_renew(tmp_path):
    (tmp_path / "w").write_bytes(b"weights")
    sha256 = "2daffadedadcda3a1e5d3bb6b91c0aae5a5a5f5bf9b9d1a2ab9a1c5d8f2d5a4e"
    hand_made(tmp_path / "all" / "a", numbered(0, 3), weights=sha256)
    said = (
        r"made none of the indexes in .*all \(they are of 2daffadedadc\); .* embed VIDEOS --weights"
    )
    with pytest.raises(ValueError, match=said):
        indexes_in([str(tmp_path / "all")], weights=tmp_path / "w")
    from hashlib import sha256 as hashed

    hand_made(tmp_path / "all" / "b", numbered(0, 3), weights=hashed(b"weights").hexdigest())
    found, notes = indexes_in([str(tmp_path / "all")], weights=tmp_path / "w")
    assert found == [str(tmp_path / "all" / "b")] and "weights_sha256" in notes[0]


def test_the_verb_searches_a_folder_of_indexes(trained, clip_folder, tmp_path, capsys):
    for name, size in (("class0", 16), ("class1", 16), ("class2", 24)):
        embed_into(tmp_path / "all" / name, clip_folder / name, weights=trained[1].weights, num_frames=4,
                   size=size, num_workers=0)  # fmt: skip
    query = tmp_path / "query.mp4"
    shutil.copy(clip_folder / "class1" / "2.mp4", query)
    assert cli.main(["search", str(tmp_path / "all"), str(query), "-k", "9", "--html", ""]) == 0
    told = capsys.readouterr()
    assert "class1/2.mp4" in told.out.splitlines()[0] and "8 of the 9 asked for" in told.out
    assert "class2) is left out: scale " in told.err and "scores: half of all pairs" in told.err
