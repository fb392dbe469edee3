"""The command line as a user types it: examples, mistakes, exit codes."""

import functools
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from stretchysnake import cli
from stretchysnake.cli.verbs import ROOMS, VERBS, verb_module
from stretchysnake.report.pages.context import ReportContext, write_context


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_help_lists_every_verb_and_loads_no_torch():
    code = (
        "import sys, stretchysnake.recipes.quickstart, stretchysnake.models.weights.published.reference; "
        "from stretchysnake.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(verb in found.stdout for verb in VERBS)


def test_every_file_of_a_room_is_a_verb_and_every_verb_has_one():
    rooms = Path(cli.__file__).parent
    files = {path.stem for room in ROOMS for path in (rooms / room).glob("*.py")}
    assert files - {"__init__", "checks"} == VERBS.keys()
    assert sorted(verb for verbs in ROOMS.values() for verb in verbs) == sorted(VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_verb_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        run(verb, "--help")
    assert ended.value.code == 0
    assert verb_module(verb).EXAMPLES.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("embed", "paths videos, folders of them, or lists"),
        ("long", "paths videos, or folders of them"),
        ("search", "paths indexes, then the query video"),
        ("report", "paths files of rows"),
        ("data info", "paths BENCHMARK FOLDER"),
        ("data list", "paths BENCHMARK FOLDER"),
        ("data check", "paths videos, folders of them, or lists"),
        ("index list", "paths one index"),
        ("index merge", "paths indexes, or folders of them"),
        ("weights get", "paths names, or hf://"),
        ("publish", "paths DIR org/name"),
        ("study power", "paths files of rows"),
        ("study publish", "paths two folders: STUDY INTO"),
        ("evaluate", "averaged; of finetune, probe-sgd and head."),
        ("evaluate", "picture; of finetune, probe-sgd and head."),
        ("evaluate", "centre for finetune, probe-sgd and head."),
    ],
)
def test_help_says_what_words_and_options_are_of(words, text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        run(*words.split(), "--help")
    assert text in " ".join(capsys.readouterr().out.split())


def test_train_evaluate_report_embed_on_real_files(clip_folder, query_folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "--data", clip_folder, "--out", out, "--steps", 2, "--batch_size", 2) == 0
    weights = out / "weights.safetensors"
    lists = ("--gallery", clip_folder, "--queries", query_folder)
    rows = tmp_path / "rows.jsonl"
    assert (
        run(
            "evaluate",
            "--weights",
            weights,
            *lists,
            "--out",
            rows,
            "--frames",
            "[4]",
            "--sizes",
            "[16,32]",
        )
        == 0
    )
    assert run("report", rows, "--out", tmp_path / "report.html") == 0
    assert "<html" in (tmp_path / "report.html").read_text()
    write_context(tmp_path / "context.json", ReportContext(title="Mine", commands=["make it"]))
    words = ("--context", tmp_path / "context.json", "--tables", tmp_path / "tables")
    assert run("report", rows, "--out", tmp_path / "report.html", *words) == 0
    assert "make it\nstretchysnake report" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "tables" / "README.md").read_text().startswith("# Mine\n")
    video = clip_folder / "class1" / "2.mp4"
    assert run("embed", video, "--weights", weights, "--out", tmp_path / "features") == 0
    assert "1 videos (1 new, 0 unreadable)" in capsys.readouterr().out


def test_configuration_goes_out_and_in_as_yaml(clip_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("train", "--data", clip_folder, "--out", tmp_path / "a", "--steps", 3, "--print_config")
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert run("train", "--config", tmp_path / "run.yaml", "--steps", 1, "--batch_size", 2) == 0
    assert "after 1 steps, 2 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["trian"], "did you mean train?"),
        (["train", "--data", "absent", "--out", "x"], "absent: no such list file or folder"),
        (
            ["train", "--data", "x", "--out", "x", "--variant", "static_token"],
            "did you mean static_tokens?",
        ),
        (["embed", "absent.mp4", "--weights", "w.pth", "--out", "x"], "absent.mp4"),
        (
            ["report", "absent.jsonl"],
            "rows (absent.jsonl) must be a file; `stretchysnake evaluate`",
        ),
        (["report", "."], "file (.): is a directory"),
        (["visualize", "absent.mp4", "--weights", "w.pth", "--out", "x"], "w.pth"),
        (
            ["evaluate", "--weights", "w.pth", "--gallery", "x", "--queries", "x", "--out", "x"],
            "w.pth",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert text in printed
    assert len(printed.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_warnings_name_no_line_of_ours(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"run_id": "a"', encoding="utf-8")
    before = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _shown_on_stderr
        run("report", tmp_path / "rows.jsonl")
    printed = capsys.readouterr().err
    assert f"warning: {tmp_path / 'rows.jsonl'}, line 1: torn last line skipped." in printed
    assert ".py" not in printed
    assert warnings.formatwarning is before


def _shown_on_stderr(message, category, filename, lineno, file=None, line=None):
    """What Python does with a warning where no test records it."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def test_folder_without_videos_says_what_it_looked_for(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert run("train", "--data", tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "mp4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_csv_with_a_wrong_column_names_line_and_column(clip_folder, tmp_path, capsys):
    path = clip_folder / "class0" / "0.mp4"
    (tmp_path / "list.csv").write_text(f"path,label\n{path},0\n{path}\n")
    assert run("train", "--data", tmp_path / "list.csv", "--out", tmp_path / "out") == 2
    assert "line 3" in capsys.readouterr().err


def test_unknown_option_is_refused_with_code_2(tmp_path):
    with pytest.raises(SystemExit) as ended:
        run("train", "--data", "x", "--out", "x", "--stepz", 3)
    assert ended.value.code == 2


def test_doctor_tells_what_is_there(capsys):
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    assert "native CPU kernels" in printed
    assert "Triton GPU kernels" in printed


@functools.cache
def completion_script() -> str:
    command = [sys.executable, "-m", "stretchysnake.cli", "completion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    script = completion_script()
    script += f"COMP_WORDS=(stretchysnake {line}); COMP_CWORD={len(words)}; _stretchysnake\n"
    script += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return found.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("emb",), ["embed"]),
        (("embed", "--fra"), ["--frames"]),
        (("train", "--optim.l"), ["--optim.lr", "--optim.layer_decay"]),
        (("train", "--dry"), ["--dry-run"]),
        (("data", "ch"), ["check"]),
        (("data", "--clea"), ["--clean"]),
        (("weights", "--ren"), ["--renew"]),
        (("classify", "--to"), ["--top"]),
        (("embed", "nothing"), []),
    ],
    ids=" ".join,
)
def test_bash_completes_verbs_actions_and_options(words, wanted):
    assert completed(*words) == wanted
