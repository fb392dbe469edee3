"""What `make test-extras` stands on: every extra has its tests, and none of them is left out unseen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXTRAS

HERE = Path(__file__).parent
TESTS = {path: path.read_text(encoding="utf-8") for path in sorted(HERE.rglob("test_*.py"))}


def declared() -> dict[str, str]:
    """Extra -> its packages, as written in pyproject.toml."""
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return dict(re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE))


def test_the_extras_are_those_of_the_package_and_all_installed_by_make():
    assert EXTRAS.keys() == declared().keys() - {"all", "dev"}
    installed = re.search(
        r"'\.\[all,dev,(.+)\]'", (HERE.parent / "Makefile").read_text(encoding="utf-8")
    )
    of_all = re.search(r"stretchysnake\[(.+)\]", declared()["all"])[1].split(",")
    assert {*of_all, *installed[1].split(",")} == EXTRAS.keys()


def test_nothing_but_the_marker_leaves_out_a_test_of_an_extra():
    modules = [module for names in EXTRAS.values() for module in names]
    by_hand = re.compile(rf"importorskip\(\s*\"({'|'.join(modules)})\"|needs_({'|'.join(modules)})")
    assert [path.name for path, text in TESTS.items() if by_hand.search(text)] == []


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"report"}))  # the report's need no marker
def test_every_extra_has_tests(extra):
    assert any(f'pytest.mark.extra("{extra}")' in text for text in TESTS.values())


def test_a_skipped_test_is_a_failed_one_where_every_extra_must_run(tmp_path):
    (tmp_path / "test_one.py").write_text(
        "import sys, pytest\n"
        "sys.modules['faiss'] = None\n"
        "@pytest.mark.extra('faiss')\n"
        "def test_missing(): raise AssertionError('ran')\n"
        "def test_skips(): pytest.skip('no reason')\n"
        "def test_runs(): pass\n"
    )
    (tmp_path / "test_two.py").write_text(
        "import pytest\npytest.skip('whole file', allow_module_level=True)\n"
    )

    def told(*options):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "conftest",
            "--rootdir",
            str(tmp_path),
        ]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [*command, *options, str(tmp_path)],
            env=environment, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    code, said = told()
    assert code == 0 and "1 passed, 3 skipped" in said
    code, said = told("--every-extra", "--continue-on-collection-errors")
    assert code == 1 and "1 passed" in said and "skipped" not in said.splitlines()[-1]
    assert "faiss is not installed: pip install 'stretchysnake[faiss]'" in said
