"""The index of a video by itself: what is on screen when, and how long that takes to say."""

import random
import time
from fractions import Fraction
from math import inf

import pytest

from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.data.decode_error import DecodeError


def index_of(stamps, **fields):
    settings = {
        "keyframes": stamps[:1],
        "ordinal": False,
        "time_base": Fraction(1, 1000),
        "fps": 30.0,
    }
    return PacketIndex(stamps=stamps, **{**settings, **fields})


def test_an_hour_is_asked_thousands_of_times_in_well_under_a_second():
    hour = index_of(list(range(0, 108_000 * 33, 33)))
    asked = [1.2 * i for i in range(2_880)]
    started = time.process_time()
    found = [hour.shown_at(second) for second in asked]
    windows = [hour.window("hour.mp4", second, second + 1) for second in asked]
    assert time.process_time() - started < 1
    assert found == [round(1000 * second) // 33 for second in asked]
    assert [first for first, _ in windows] == found


def test_shown_at_and_window_agree_with_a_search_from_the_front():
    draw = random.Random(0)
    stamps = sorted(draw.sample(range(500, 60_000), 40))
    index = index_of(stamps)
    shown = [(stamp - stamps[0]) / 1000 for stamp in stamps]
    for second in (draw.uniform(0, shown[-1]) for _ in range(200)):
        on_screen = max(i for i, at in enumerate(shown) if at <= second)
        assert index.shown_at(second) == on_screen
        first, stop = index.window("v.mp4", second, second + 5)
        assert first == on_screen and stop == sum(at < second + 5 for at in shown)


@pytest.mark.parametrize(("held", "duration"), [(None, 2.1), (4.0, 6.0), (0.04, 2.04)], ids=str)
def test_the_last_frame_lasts_as_its_packet_says(held, duration):
    assert index_of([0, 500, 2000], fps=10.0, last_seconds=held).duration == pytest.approx(duration)


def test_a_held_last_frame_can_be_pointed_into():
    index = index_of([0, 500, 2000], last_seconds=4.0)
    assert index.window("v.mkv", 3.5, 5.0) == (2, 3)
    with pytest.raises(DecodeError, match=r"no frame between 6.5 s and 7.0 s \(it lasts 6.00 s\)"):
        index.window("v.mkv", 6.5, 7.0)


def test_what_a_decoder_shows_of_packets_without_times_keeps_its_own_clock():
    packets = index_of(
        list(range(60)),
        time_base=Fraction(1, 25),
        decoder_base=Fraction(1, 90000),
        uncounted_before=inf,
    )
    counted = packets.counted("v.ts", range(90000, 90000 + 30 * 3600, 3600), 30)
    assert counted.seconds(29) == pytest.approx(29 / 25)
