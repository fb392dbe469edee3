"""The page of a search: links that play at the hit's time, what scores mean, previews below a limit."""

from html.parser import HTMLParser

import pytest

from stretchysnake.report.pages.embedded import embedded_bytes, file_uri, that_fit
from stretchysnake.report.pages.search_page import ShownHit, ShownVideo, render_search_page


def shown(path, start=0.0, end=None, preview=b"p" * 300):
    return ShownVideo(
        path=path, start=start, end=end, strip_png=b"s" * 30, preview_mp4=preview, preview_start=start, preview_end=end
    )  # fmt: skip


def hit(path, start, end, share):
    return ShownHit(
        video=shown(path, start, end), score=0.89, index="i", class_name="", marks=(), query_time="", share_below=share
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


HITS = [hit("/v/a b#1.mp4", 72.5, 80.0, 0.6234), hit("/v/b.mp4", 0.0, None, 1.0)]


def test_hits_play_at_their_time_and_say_what_their_score_means():
    text = render_search_page(shown("/q.mp4"), HITS, facts=[], spread="half of all pairs score x")
    tags = Tags(text)
    assert [a["href"] for a in tags.all("a")] == [
        "file:///q.mp4",
        "file:///v/a%20b%231.mp4#t=72.5,80",
        "file:///v/b.mp4",
    ]
    assert "0.8900 is higher than 62.3 % of random pairs of the index." in text
    assert "0.8900 is higher than every random pair of the index." in text
    assert "What a score means depends on the weights: half of all pairs score x." in text
    videos = tags.all("video")
    assert len(videos) == 3 and all(v["src"].startswith("data:video/mp4;base64,") for v in videos)
    assert all("controls" in v and "muted" in v and "autoplay" not in v for v in videos)
    assert videos[1]["aria-label"] == "Preview of a b#1.mp4, 1:12.5 to 1:20"


def test_previews_are_left_out_where_the_page_would_be_too_large_and_frames_stay():
    strips, preview = 3 * 40, 400  # 30 and 300 bytes in base64
    for room, kept in ((3 * preview, 3), (3 * preview - 1, 2), (preview, 1), (0, 0)):
        text = render_search_page(shown("/q.mp4"), HITS, facts=[], page_bytes=strips + room)
        assert text.count("<video ") == kept and text.count("<img ") == 3


def test_nothing_is_said_of_a_score_where_no_spread_is_known():
    text = render_search_page(shown("/q.mp4"), [hit("/v/a.mp4", 0.0, None, None)], facts=[])
    assert "random pairs" not in text and "depends on the weights" not in text


def test_sizes_that_fit():
    assert [embedded_bytes(b"x" * n) for n in (0, 1, 3, 4)] == [0, 4, 4, 8]
    assert that_fit([5, 6, 4], taken=1, page_bytes=10) == [True, False, True]


@pytest.mark.parametrize(
    ("start", "end", "fragment"), [(0.0, None, ""), (0.0, 4.0, "#t=0,4"), (3.25, None, "#t=3.25")]
)
def test_an_address_names_the_part(start, end, fragment):
    assert file_uri("/v/ä.mp4", start, end) == f"file:///v/%C3%A4.mp4{fragment}"
