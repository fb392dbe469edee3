"""`plan` prices the scales of every architecture: what is counted, what is measured, within the budget."""

import pytest
from priced_backbones import SMALL

from stretchysnake.eval.features.extraction import model_hash
from stretchysnake.eval.sweeps.cost import count_flops, measure_peak_bytes
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import ARCHITECTURES, build_model, config_named
from stretchysnake.models.weights.files import save_model
from stretchysnake.results.rows import Row
from stretchysnake.search.budget import Budget
from stretchysnake.search.plan import plan


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_plan_takes_the_better_scale_that_its_budget_allows(architecture, tmp_path):
    name, changes = SMALL[architecture]
    model = build_model(config_named(name, **changes)).eval()
    native, path = model.config.native, tmp_path / "weights.safetensors"
    save_model(path, model)
    frames = (native.num_frames, 2 * native.num_frames)
    rows = [
        Row(
            run_id="r", protocol="retrieval", dataset="toy", model="vanilla", seed=0, num_frames=t,
            size=native.size, patch_size=native.patch_size, metric="top1", value=0.2 + 0.02 * t, num_queries=50,
            num_expected=50, num_gallery=50, gflops=None, milliseconds=None, trained=True, native=t == frames[0],
            weights=model_hash(model),
        )
        for t in frames
    ]  # fmt: skip
    scales = [Scale(t, native.size, native.patch_size) for t in frames]
    cheap, dear = (count_flops(model.config, scale) / 1e9 for scale in scales)
    made = plan(path, Budget("gflops", (cheap + dear) / 2), rows)
    assert [cell.gflops for cell in made.cells] == [cheap, dear]
    assert made.choice.num_frames == frames[0]
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    held = weights + measure_peak_bytes(model, scales[0])
    assert made.choice.mebibytes == pytest.approx(held / 2**20)
