"""The installed decoder's colours, and what is said of one that is too old."""

from importlib import metadata

import av
import pytest
from numbered_video import write_numbered

from stretchysnake.cli import main
from stretchysnake.cli.installation import checks
from stretchysnake.data.decoding import colour_check, video_track
from stretchysnake.data.decoding.video import read_frames


def test_a_bt709_frame_comes_in_its_colours():
    # by hand from Y 139, Cb 75, Cr 57 of BT.709, limited range: y = 219/255 of Y - 16, and so on
    luma, blue, red = (139 - 16) / 219, (75 - 128) / 224, (57 - 128) / 224
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    shown = [255 * channel for channel in (r, g, b)]
    assert shown == pytest.approx(colour_check.SHOWN, abs=1)
    assert colour_check.decoded_colour() == pytest.approx(shown, abs=3)


def test_doctor_names_the_version_and_the_verdict(monkeypatch):
    good, line = checks.decoding()
    assert good and line.startswith(f"av {metadata.version('av')}, ") and line.endswith("good")
    monkeypatch.setattr(colour_check, "decoded_colour", lambda: (29, 220, 36))  # by BT.601
    good, line = checks.decoding()
    assert not good and line.endswith(
        "(29, 220, 36) for (16, 192, 32), WRONG colours: pip install --upgrade av"
    )


@pytest.fixture
def old_av(monkeypatch):
    monkeypatch.setattr(av, "__version__", "16.1.0")
    video_track.check_av.cache_clear()
    yield
    video_track.check_av.cache_clear()


def test_a_decoder_that_is_too_old_is_told_in_one_line(old_av, tmp_path, capsys):
    path = write_numbered(tmp_path / "v.mp4", 3)
    text = r"av \(16\.1\.0\) must be 17 or newer, .*: pip install 'av>=17'"
    with pytest.raises(RuntimeError, match=text):
        read_frames(path, [0])
    assert main(["data", "check", path, "--report", str(tmp_path / "r.json")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: av (16.1.0) must be 17") and len(said) == 1
    good, line = checks.decoding()
    assert not good and line.endswith("pip install 'av>=17'")
