"""Names of outputs: the lists of the package against what their sources say, published files, a user's own."""

import json

import pytest

from stretchysnake.data.benchmarks.breakfast import DISHES
from stretchysnake.data.benchmarks.class_names.orders import (
    ORDERS,
    given_names,
    names_in_order,
    order_of_published,
)

LENGTHS = {
    "kinetics400": 400,
    "kinetics400-opengvlab": 400,
    "ssv2": 174,
    "breakfast": 10,
    "breakfast-vis4mer": 10,
    "imagenet1k": 1000,
}


def test_every_list_has_a_name_for_each_class_and_none_twice():
    assert LENGTHS.keys() == ORDERS.keys()
    for order, length in LENGTHS.items():
        names = names_in_order(order)
        assert len(names) == len(set(names)) == length, order
        assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize(
    ("order", "known"),
    [
        # Sense-X/UniFormer issue 72, which found them by running the published model
        (
            "kinetics400-opengvlab",
            {259: "somersaulting", 199: "pushing cart", 193: "sniffing", 334: "carving pumpkin",
             390: "jumpstyle dancing", 84: "dancing gangnam style", 237: "diving cliff"},
        ),
        # labels of videos 74225 and 116154 in UniFormer's list, their templates by the official JSON
        (
            "ssv2",
            {140: "Spinning something that quickly stops spinning", 127: "Showing something on top of something",
             16: "Holding something"},
        ),
        # rows of ViS4mer's test.csv: action, class_id
        ("breakfast-vis4mer", {0: "cereals", 2: "tea", 4: "friedegg", 7: "juice", 9: "salat"}),
        ("imagenet1k", {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby"}),
    ],
)  # fmt: skip
def test_places_that_others_have_told(order, known):
    assert {number: names_in_order(order)[number] for number in known} == known


def test_orders_of_one_data_set_hold_the_same_names():
    assert sorted(names_in_order("kinetics400-opengvlab")) == list(names_in_order("kinetics400"))
    assert (
        names_in_order("breakfast") == DISHES == tuple(sorted(names_in_order("breakfast-vis4mer")))
    )
    assert list(names_in_order("ssv2")) == sorted(names_in_order("ssv2"))


@pytest.mark.parametrize(
    ("name", "outputs", "order"),
    [
        ("w/videomamba_m16_k400_mask_ft_f16_res224.pth", 400, "kinetics400-opengvlab"),
        ("videomamba-m-k400-f16", 400, "kinetics400-opengvlab"),
        ("videomamba_s16_ssv2_f8_res224.pth", 174, "ssv2"),
        ("videomamba_t16_breakfast_f32_res224.pth", 10, "breakfast-vis4mer"),
        ("videomamba_b16_in1k_res224.pth", 1000, "imagenet1k"),
        ("uniformer_base_k400_16x4.pth", 400, "kinetics400-opengvlab"),
        ("k400_k710_uniformerv2_b16_8x224.pth", 400, "kinetics400-opengvlab"),
        ("mvit_v1_b-dbeb1030.pth", 400, "kinetics400"),
        ("swin_base_patch244_window877_kinetics400_1k.pth", 400, "kinetics400"),
        ("videomamba_m16_k400_mask_pt_f8_res224.pth", 400, None),  # no classifier was trained
        ("videomamba_m16_k400_f16_res224.pth", 174, None),  # its head was exchanged
        ("videomamba_t16_coin_f32_res224.pth", 180, None),  # the names are not known here
        ("my_k400_model.pth", 400, None),
        ("weights.safetensors", 400, None),
    ],
)
def test_a_published_file_is_known_by_its_name(name, outputs, order):
    assert order_of_published([name], outputs) == order


def test_names_come_from_a_file_of_lines_json_or_a_list(tmp_path):
    (tmp_path / "c.txt").write_text("run\n\njump high\n", encoding="utf-8")
    (tmp_path / "a.json").write_text('["run", "jump high"]')
    (tmp_path / "n.json").write_text('{"1": "jump high", "0": "run"}')
    (tmp_path / "labels.json").write_text('{"jump high": "1", "run": 0}')
    (tmp_path / "l.csv").write_text("path,label,class_name\nx.mp4,1,jump high\ny.mp4,0,run\n")
    for name in ("c.txt", "a.json", "n.json", "labels.json", "l.csv"):
        found = given_names(tmp_path / name, 2)
        assert found.names == ["run", "jump high"], name
        assert found.source == str(tmp_path / name)
    assert given_names("breakfast", 10).names[2] == "friedegg"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.txt", "run\n", r"gives 1 names, and the weights have 2 outputs"),
        ("c.txt", "run\nrun\n", "gives 'run' twice"),
        ("c.json", "{", "is no JSON"),
        ("c.json", json.dumps({"run": 0, "jump": 2}), "gives no name of 1, expected a list"),
        ("c.json", "3", "gives no name of 0"),
        (
            "l.csv",
            "path,label,class_name\nx.mp4,0,run\n",
            r"names no class of label 1 \(1 of 2 are",
        ),
        (
            None,
            "kinetics-400",
            "must be a file, or one of: kinetics400, .*did you mean kinetics400",
        ),
    ],
)
def test_wrong_names_are_refused(tmp_path, name, text, said):
    given = text
    if name is not None:
        given = tmp_path / name
        given.write_text(text)
    with pytest.raises(ValueError, match=said):
        given_names(given, 2)
