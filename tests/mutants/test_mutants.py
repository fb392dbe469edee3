"""The list of mutants itself: each applies to the tree as it is. Whether tests catch them: `make mutants`."""

from collections import Counter

import pytest
from mutant_list import PACKAGE, Mutant, planted, read_mutants
from plant import ROOT, suites_of

FOLDERS = {"models", "ops", "data", "train", "eval", "search", "report"}


def test_every_mutant_still_applies():
    broken = []
    for mutant in read_mutants():
        path = ROOT / PACKAGE / mutant.file
        try:
            planted(mutant, path.read_text(encoding="utf-8") if path.is_file() else "")
        except ValueError as error:
            broken.append(str(error))
    assert not broken, "mend or replace these entries:\n" + "\n".join(broken)


def test_mutants_cover_the_package_and_none_is_there_twice():
    mutants = read_mutants()
    folders = Counter(mutant.file.split("/")[0] for mutant in mutants)
    assert len(mutants) >= 120 and min(folders[folder] for folder in FOLDERS) >= 5
    assert not [
        key for key, times in Counter((m.file, m.old, m.new) for m in mutants).items() if times > 1
    ]
    assert not [name for name, times in Counter(map(str, mutants)).items() if times > 1]


def test_mutant_that_does_not_apply_is_said():
    for old, new, text in (
        ("b", "c", "occurs 2 times, expected once"),
        ("z", "c", "occurs 0 times"),
        ("a", "a", "must differ"),
        ("a", "(", "does not parse"),
    ):
        with pytest.raises(ValueError, match=text):
            planted(Mutant("x.py", "wrong", old, new), "a = b + b\n")
    assert planted(Mutant("x.py", "wrong", "a = b +", "a = b -"), "a = b + b\n") == "a = b - b\n"


def test_mirrored_tests_come_first():
    first, rest = suites_of("train/step.py")
    assert first == ["tests/train/test_step.py", "tests/train/test_step_by_hand.py"]
    assert "tests/train/test_loop.py" in rest and first[0] not in rest
    assert suites_of("results/rows.py")[0] == ["tests/results/test_rows.py"]
    assert suites_of("flexibility/draws.py") == [["tests/flexibility/test_flexibility.py"]]
