"""The figure of the token order says what models/videomamba.py does, the committed file included."""

import re
from pathlib import Path

import pytest

from stretchysnake.recipes.token_order import model_scan_orders, model_token_order
from stretchysnake.report.figures.picture import style
from stretchysnake.report.figures.token_order_picture import token_order_picture

COMMITTED = Path(__file__).parents[2] / "docs" / "token-order.svg"


def test_model_reads_cls_then_frame_after_frame_row_by_row():
    expected = [None, *((t, h, w) for t in range(3) for h in range(2) for w in range(4))]
    assert model_token_order(3, 2, 4) == expected


def test_forward_scan_reads_from_first_to_last_backward_from_last_to_first():
    assert model_scan_orders(9) == {"forward": list(range(9)), "backward": list(range(8, -1, -1))}


def ids_of_the_model(num_frames, height, width) -> set[str]:
    order = model_token_order(num_frames, height, width)
    scans = model_scan_orders(len(order))
    return {
        f"token-{place}-" + ("cls" if patch is None else "t{}-h{}-w{}".format(*patch))
        for place, patch in enumerate(order)
    } | {f"scan-{name}-from-{read[0]}-to-{read[-1]}" for name, read in scans.items()}


def ids_of(svg: str) -> set[str]:
    return set(re.findall(r'id="token-order-((?:token|scan)-[\w-]*?)(?:-words)?"', svg))


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 1, 2)], ids=str)
def test_drawing_has_the_models_order(shape):
    order = model_token_order(*shape)
    picture = token_order_picture(order, model_scan_orders(len(order)))
    assert ids_of(picture.svg()) == ids_of_the_model(*shape)


def test_committed_figure_has_the_models_order():
    assert ids_of(COMMITTED.read_text(encoding="utf-8")) == ids_of_the_model(2, 2, 3)


def test_boxes_stand_in_the_order_of_the_sequence():
    order = [(1, 0, 0), None, (0, 0, 0)]  # not the model's: the drawing follows what it is given
    picture = token_order_picture(order, {"forward": [0, 1, 2], "backward": [2, 1, 0]})
    with style("black") as plt:
        figure = picture.draw(plt)
        boxes = {p.get_gid(): p.get_x() for p in figure.axes[0].patches if p.get_gid()}
        arrows = {
            a.get_gid(): (a.xyann[0], a.xy[0]) for a in figure.axes[0].texts if hasattr(a, "xyann")
        }
        plt.close(figure)
    assert sorted(boxes, key=boxes.get) == ["token-0-t1-h0-w0", "token-1-cls", "token-2-t0-h0-w0"]
    start, end = arrows["scan-forward-from-0-to-2"]
    assert start < end
    start, end = arrows["scan-backward-from-2-to-0"]
    assert start > end
