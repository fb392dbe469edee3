"""The Triton kernels: on a CUDA device where there is one, else by Triton's interpreter in a process of its own:
`python -m pytest -m slow tests/ops/test_selective_scan_triton.py`.

The interpreter takes about a millisecond for each line of a kernel, so shapes and tiles are small there.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scan_problems import NAMES, expected, make_inputs, relative_rms, run_with_gradients

from stretchysnake.ops import causal_conv_silu
from stretchysnake.ops.backend import choose_backend
from stretchysnake.ops.causal_conv import triton as causal_conv_triton
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.selective_scan import triton_tiles
from stretchysnake.ops.selective_scan.scan import selective_scan
from stretchysnake.ops.selective_scan.triton_tiles import backward_tiles, forward_tiles
from stretchysnake.ops.triton import runtime as triton_runtime

HERE = Path(__file__)
INSTALLED = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(
    not triton_runtime.is_available(), reason=f"{triton_runtime.unavailable_reason()}"
)
# Triton 3.6's interpreter reads numbers from arrays of one element, which NumPy 2.3 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
SEQUENCES = ("u", "delta", "B", "C", "z")
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
DEVICE = "cuda" if torch.cuda.is_available() and not triton_runtime.is_interpreted() else "cpu"
LENGTHS = [1, 2, 63, 100, 1000] if DEVICE == "cuda" else [1, 2, 11]
PACKED = [1, 64, 3, 65, 33] if DEVICE == "cuda" else [1, 8, 3, 9]


@pytest.fixture(autouse=True)
def no_gpu_unless_marked():
    """These take the GPU where there is one, marked or not."""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles that tests of the interpreter can afford, of which several make a checkpoint's span."""
    if triton_runtime.is_interpreted():
        monkeypatch.setattr(triton_tiles, "checkpoint_tokens", lambda state: 8)
        monkeypatch.setattr(triton_tiles, "forward_tiles", lambda *_: triton_tiles.Tiles(8, 4, 1))
        monkeypatch.setattr(triton_tiles, "backward_tiles", lambda *_: triton_tiles.Tiles(4, 4, 1))
        monkeypatch.setattr(triton_tiles, "BACKWARD_LANES", 2)
        for name in ("FORWARD", "BACKWARD"):
            monkeypatch.setattr(causal_conv_triton, name, triton_tiles.Tiles(8, 4, 1))
        monkeypatch.setattr(causal_conv_triton, "SPAN_TOKENS", 16)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh tensors hold NaN: an output that a kernel forgets to write is seen."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # else cuBLAS refuses to be deterministic
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def placed(inputs: dict) -> dict:
    return {name: t if t is None else t.to(DEVICE) for name, t in inputs.items()}


def cut_into(monkeypatch, tokens: int) -> None:
    """Segments of so many tokens, whatever the chip."""
    monkeypatch.setattr(
        triton_tiles, "cut_segments", lambda length, *_: (-(-length // tokens), tokens)
    )


def largest_error(found: dict, wanted: dict) -> tuple[float, str]:
    return max((relative_rms(found[name].cpu(), wanted[name].cpu()), name) for name in wanted)


# RMS of one sum over all tokens can cancel: fp32 is bounded as in the tests of the other backends.
BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}


@needs_triton
@directions
@pytest.mark.parametrize("sizes", [(1, 1), (5, 3)], ids=lambda s: "D{}-N{}".format(*s))
@pytest.mark.parametrize("length", LENGTHS, ids="L{}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_scan_and_all_gradients_match_fp64_reference(dtype, length, sizes, reverse):
    inputs = placed(make_inputs(length, *sizes, dtype=dtype))
    found = run_with_gradients(inputs, reverse=reverse, backend="triton")
    error, name = largest_error(found, expected(length, *sizes, reverse))
    assert error < BOUND[dtype], name


@needs_triton
@directions
def test_segments_of_a_split_sequence_carry_states_and_adjoints(reverse, monkeypatch):
    cut_into(monkeypatch, 32 if DEVICE == "cuda" else 8)
    length = 100 if DEVICE == "cuda" else 19
    inputs = placed(make_inputs(length, 5, 3))
    found = run_with_gradients(inputs, reverse=reverse, backend="triton")
    error, name = largest_error(found, expected(length, 5, 3, reverse))
    assert error < 1e-12, name


@needs_triton
def test_blocks_of_channels_that_share_a_part_add_up(monkeypatch):
    monkeypatch.setattr(triton_tiles, "PARTS_BYTES", 1)
    if DEVICE == "cuda":
        monkeypatch.setattr(triton_tiles, "backward_tiles", lambda *_: triton_tiles.Tiles(8, 4, 1))
    inputs = placed(make_inputs(10, 9, 3))
    found = run_with_gradients(inputs, backend="triton")
    error, name = largest_error(found, expected(10, 9, 3, False))
    assert error < 1e-12, name


@needs_triton
@pytest.mark.parametrize("tokens", [None, 8], ids=["whole", "segments"])
@directions
def test_packed_sequences_scan_as_if_alone(reverse, tokens, monkeypatch):
    if tokens:
        cut_into(monkeypatch, tokens if DEVICE == "cpu" else 32)
    inputs = make_inputs(sum(PACKED), 5, 3, batch=1)
    inputs["initial_state"] = make_inputs(1, 5, 3, batch=len(PACKED), seed=2)["initial_state"]
    ends = torch.tensor([0, *torch.tensor(PACKED).cumsum(0).tolist()], dtype=torch.int32)
    options = {"reverse": reverse, "cu_seqlens": ends}
    wanted = run_with_gradients(inputs, backend="reference", **options)
    options["cu_seqlens"] = ends.to(DEVICE)
    found = run_with_gradients(placed(inputs), backend="triton", **options)
    error, name = largest_error(found, wanted)
    assert error < 1e-12, name


@needs_triton
@directions
def test_scan_without_optional_inputs_matches_reference(reverse):
    inputs = {name: make_inputs(11, 5, 3)[name] for name in ("u", "delta", "A", "B", "C")}
    inputs["delta"] = inputs["delta"].abs()
    leaves = {name: t.to(DEVICE).requires_grad_() for name, t in inputs.items()}
    found = selective_scan(**leaves, reverse=reverse, backend="triton")
    found.sum().backward()  # the gradient comes expanded, with strides of 0
    ours = {name: t.grad.cpu() for name, t in leaves.items()}
    leaves = {name: t.requires_grad_() for name, t in inputs.items()}
    wanted = selective_scan(**leaves, reverse=reverse, backend="reference")
    wanted.sum().backward()
    torch.testing.assert_close(found.cpu(), wanted)
    torch.testing.assert_close(ours, {name: t.grad for name, t in leaves.items()})


@needs_triton
def test_gradient_of_the_final_state_alone():
    inputs = make_inputs(11, 5, 3)
    gradients = []
    for backend, device in (("triton", DEVICE), ("reference", "cpu")):
        leaves = {name: t.detach().to(device).requires_grad_() for name, t in inputs.items()}
        _, state = selective_scan(**leaves, return_final_state=True, backend=backend)
        state.square().sum().backward()
        gradients.append({n: t.grad.cpu() for n, t in leaves.items() if t.grad is not None})
    ours, wanted = gradients
    assert all(
        not ours[name].any() for name in ours.keys() - wanted.keys()
    )  # C, D and z play no part
    torch.testing.assert_close({name: ours[name] for name in wanted}, wanted)


@needs_triton
def test_strided_and_expanded_inputs_are_read_in_place():
    projection = torch.randn(2, 13, 26, generator=torch.Generator().manual_seed(0))
    u, z, _, B, C = projection.split([5, 5, 4, 6, 6], dim=-1)
    inputs = make_inputs(13, 5, 3, dtype=torch.float32)
    inputs |= {"u": u, "z": z, "B": B[..., ::2], "C": C[..., 1::2]}
    inputs["delta"] = inputs["delta"].transpose(1, 2).contiguous().transpose(1, 2)
    inputs["A"] = inputs["A"][:1].expand(5, -1)
    inputs["D"] = torch.arange(10.0)[::2]
    inputs["initial_state"] = inputs["initial_state"].transpose(1, 2).contiguous().transpose(1, 2)
    found = run_with_gradients(placed(inputs), backend="triton")
    wanted = run_with_gradients({n: t.double() for n, t in inputs.items()}, backend="reference")
    error, name = largest_error(found, wanted)
    assert error < BOUND[torch.float32], name


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_errs_no_more_than_twice_the_eager_path(dtype):
    inputs = make_inputs(19, 5, 3, dtype=torch.float32)
    half = {n: t.to(dtype) if n in SEQUENCES else t for n, t in inputs.items()}
    wanted = run_with_gradients({n: t.double() for n, t in half.items()}, backend="reference")
    eager = run_with_gradients(half, backend="torch")
    found = run_with_gradients(placed(half), backend="triton")
    for name in wanted:
        assert found[name].dtype == eager[name].dtype, name
        exact, budget = wanted[name], (eager[name].double() - wanted[name]).abs().max()
        budget = 2 * (budget + torch.finfo(eager[name].dtype).eps * exact.abs().max())
        assert (found[name].cpu().double() - exact).abs().max() <= budget, name


@needs_triton
@directions
def test_scan_cut_and_continued_equals_the_whole(reverse):
    inputs = placed(make_inputs(13, 5, 3))
    options = {"delta_softplus": True, "return_final_state": True, "reverse": reverse}
    options["backend"] = "triton"
    whole, final_state = selective_scan(**inputs, **options)
    spans = [slice(0, 6), slice(6, 13)]
    state, parts = inputs["initial_state"], {}
    for i in (1, 0) if reverse else (0, 1):
        cut = {n: t[:, spans[i]] if n in SEQUENCES else t for n, t in inputs.items()}
        parts[i], state = selective_scan(**cut | {"initial_state": state}, **options)
    torch.testing.assert_close(torch.cat([parts[0], parts[1]], 1), whole)
    torch.testing.assert_close(state, final_state)


@needs_triton
def test_repeated_runs_are_bitwise_equal():
    inputs = placed(make_inputs(LENGTHS[-1], 5, 3, dtype=torch.float32))
    first, second = (run_with_gradients(inputs, backend="triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_triton
@pytest.mark.parametrize("delta", [-1e4, -90.0, -17.0, 25.0, 1e4], ids="delta{:g}".format)
def test_extreme_steps_stay_finite_and_exact(delta):
    inputs = make_inputs(5, 4, 3, dtype=torch.float32)
    inputs["delta"] = torch.full_like(inputs["delta"], delta)
    found = run_with_gradients(placed(inputs), backend="triton")
    wanted = run_with_gradients({n: t.double() for n, t in inputs.items()}, backend="reference")
    assert all(t.isfinite().all() for t in found.values())
    assert relative_rms(found["y"].cpu(), wanted["y"]) < 1e-5
    assert relative_rms(found["final_state"].cpu(), wanted["final_state"]) < 1e-5


@needs_triton
def test_nan_reaches_its_own_sequence_and_channel_only():
    inputs = placed(make_inputs(12, 5, 3, dtype=torch.float32))
    inputs["delta"][1, 5, 3] = float("nan")
    y = selective_scan(**inputs, delta_softplus=True, backend="triton")
    assert y[1, 5:, 3].isnan().all()
    assert y[1, :5].isfinite().all() and y[0].isfinite().all()
    assert y[1, :, [0, 1, 2, 4]].isfinite().all()


@needs_triton
def test_empty_batch_gives_empty_output_and_zero_gradients():
    found = run_with_gradients(placed(make_inputs(4, 3, 2, batch=0)), backend="triton")
    assert found["y"].shape == (0, 4, 3)
    assert not found["grad A"].any()


@needs_triton
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@directions
def test_convolution_and_its_gradients_match_torch(reverse, packed, bias):
    generator = torch.Generator().manual_seed(0)
    length = sum(PACKED)
    shapes = ((1 if packed else 2, length, 7), (5, 4), (5,))
    x, weight, shift = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    tensors = (x[..., 1:6], weight, shift if bias else None)
    ends = torch.tensor([0, *torch.tensor(PACKED).cumsum(0).tolist()]) if packed else None
    outcomes = []
    for backend, device in (("triton", DEVICE), ("torch", "cpu")):
        own = [None if t is None else t.detach().to(device).requires_grad_() for t in tensors]
        seams = None if ends is None else ends.to(device)
        y = causal_conv_silu(*own, reverse, backend, seams)
        cotangent = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(device)
        gradients = torch.autograd.grad(y, [t for t in own if t is not None], cotangent)
        outcomes.append([t.cpu() for t in (y, *gradients)])
    torch.testing.assert_close(*outcomes, rtol=1e-12, atol=1e-12)


@needs_triton
def test_half_precision_convolution_keeps_its_dtype():
    x = torch.randn(2, 6, 5).bfloat16().to(DEVICE)
    weight, bias = torch.randn(5, 3).to(DEVICE), torch.randn(5).to(DEVICE)
    found = causal_conv_silu(x, weight, bias, backend="triton")
    wanted = causal_conv_silu(x.double(), weight, bias, backend="torch")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted.bfloat16())


@needs_triton
@pytest.mark.parametrize("packed", [True, False], ids=["packed, all inputs", "required inputs"])
def test_torch_knows_the_operations(packed):
    inputs = placed(make_inputs(9, 4, 3, batch=1, dtype=torch.float32))
    ends = torch.tensor([0, 9], dtype=torch.int32, device=DEVICE) if packed else None
    for name in () if packed else ("D", "z", "delta_bias", "initial_state"):
        inputs[name] = None
    tensors = [None if inputs[n] is None else inputs[n].requires_grad_() for n in ORDER]
    scan = torch.ops.stretchysnake.selective_scan_triton
    torch.library.opcheck(scan, (*tensors, ends, True, False, True))
    x, weight = inputs["u"].requires_grad_(), inputs["A"].requires_grad_()
    conv = torch.ops.stretchysnake.causal_conv_silu_triton
    torch.library.opcheck(conv, (x, weight, inputs["D"] if packed else None, ends, True))


@needs_triton
def test_compiled_scan_is_the_eager_one_and_stays_one_operation():
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    inputs = placed(make_inputs(9, 4, 3, dtype=torch.float32))
    compiled = torch.compile(
        lambda **t: selective_scan(**t, backend="triton"), backend=backend, fullgraph=True
    )
    assert torch.equal(compiled(**inputs), selective_scan(**inputs, backend="triton"))
    assert any("stretchysnake.selective_scan_triton" in name for name in seen)


@needs_triton
def test_flop_counter_counts_as_on_the_cpu():
    from torch.utils.flop_counter import FlopCounterMode

    from stretchysnake.ops.flops import (
        causal_conv_flops,
        selective_scan_backward_flops,
        selective_scan_flops,
    )

    inputs = {n: t.requires_grad_() for n, t in placed(make_inputs(9, 4, 3)).items()}
    with FlopCounterMode(display=False) as counter:
        u = causal_conv_silu(inputs["u"], inputs["A"].detach(), None, backend="triton")
        selective_scan(**(inputs | {"u": u}), backend="triton").sum().backward()
    wanted = selective_scan_flops(2, 9, 4, 3) + selective_scan_backward_flops(2, 9, 4, 3)
    assert counter.get_total_flops() == wanted + 4 * causal_conv_flops(2, 9, 4, 3)


@needs_triton
def test_double_backward_is_refused():
    inputs = placed(make_inputs(4, 3, 2))
    inputs["u"].requires_grad_()
    y = selective_scan(**inputs, backend="triton")
    with pytest.raises(RuntimeError, match=r"backend='triton' has no second derivative"):
        torch.autograd.grad(y.sum(), inputs["u"], create_graph=True)


@pytest.mark.gpu
@needs_triton
def test_scan_is_captured_in_a_cuda_graph_and_chosen_by_itself():
    inputs = {n: t.cuda() for n, t in make_inputs(65, 64, 16, dtype=torch.float32).items()}
    wanted = selective_scan(**inputs, delta_softplus=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = selective_scan(**inputs, delta_softplus=True, backend="triton")
    graph.replay()
    assert torch.equal(found, wanted)


@pytest.mark.gpu
@needs_triton
def test_offsets_pass_two_to_the_31():
    length, channels = 2**16 + 3, 2**15  # 2^31 + 98304 elements in u
    u = torch.zeros(1, length, channels, dtype=torch.bfloat16, device="cuda")
    u[0, -3:] = 1
    B = torch.ones(1, length, 1, device="cuda")
    A = -torch.ones(channels, 1, device="cuda")
    y = selective_scan(u, torch.ones_like(u), A, B, B, backend="triton")
    wanted = torch.tensor([0.0, 1.0, 1.3679, 1.5032], device="cuda")
    torch.testing.assert_close(y[0, -4:, -1].float(), wanted, atol=1e-2, rtol=0)


@pytest.mark.gpu
@needs_triton
def test_mixer_under_autocast_and_compile_is_close_to_fp32():
    from stretchysnake.models.mixer import BidirectionalMixer

    mixer = BidirectionalMixer(64, state_size=16, expand=2, conv_width=4, dt_rank=4).cuda()
    mixer.initialise(depth=2, init="mamba")
    x = torch.randn(2, 50, 64, device="cuda")
    wanted = mixer(x)
    with torch.autocast("cuda", torch.bfloat16):
        eager, compiled = mixer(x), torch.compile(mixer)(x)
    assert relative_rms(eager, wanted) < 2e-2
    assert relative_rms(compiled, wanted) < 2e-2


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="triton is not installed: `pip install triton`")
@pytest.mark.skipif(triton_runtime.is_available(), reason="the tests above run in this process")
def test_all_of_the_above_under_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-m", "not slow", "-p", "no:cacheprovider", str(HERE)],
        env=environment, capture_output=True, text=True, cwd=HERE.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    if "the interpreter of triton" in done.stdout:
        pytest.skip(done.stdout[-600:])
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="triton is not installed: `pip install triton`")
@pytest.mark.skipif(triton_runtime.is_interpreted(), reason="the interpreter compiles nothing")
def test_kernels_compile_for_hopper_without_one():
    done = subprocess.run(
        [sys.executable, str(HERE.parents[1] / "compile_triton_kernels.py")],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[2])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(done.stdout.split()) == {
        *("scan_forward", "scan_backward", "segment_states", "segment_adjoints", "carry_states"),
        *("conv_forward", "conv_backward"),
    }


def test_absent_triton_is_named_with_the_command_to_run(monkeypatch):
    triton_runtime._found.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    inputs = make_inputs(4, 3, 2)
    try:
        with pytest.raises(
            RuntimeError, match=r"'triton' is not available: .* run `pip install tri"
        ):
            selective_scan(**inputs, backend="triton")
        with pytest.raises(RuntimeError, match=r"'triton' is not available: triton not found"):
            causal_conv_silu(inputs["u"], torch.zeros(3, 4), None, backend="triton")
    finally:
        triton_runtime._found.cache_clear()


@pytest.mark.parametrize(
    ("numpy_version", "found"), [("2.4.0", "run `pip install 'numpy<2.4'`"), ("2.3.5", "")]
)
def test_numpy_that_the_interpreter_cannot_work_with_is_named(numpy_version, found, monkeypatch):
    triton = pytest.importorskip("triton", reason="triton is not installed: `pip install triton`")
    monkeypatch.setattr("numpy.__version__", numpy_version)
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    fault = triton_runtime._interpreter_fault()
    assert found in fault if found else fault is None


def test_tensors_elsewhere_are_refused(monkeypatch):
    monkeypatch.setattr(triton_runtime, "_found", lambda: (False, None))
    with pytest.raises(
        ValueError, match=r"u \(device cpu\) must be on a CUDA device .*\.to\('cuda"
    ):
        selective_scan(**make_inputs(4, 3, 2), backend="triton")


@pytest.mark.parametrize(("missing", "chosen"), [(None, "triton"), ("no triton", "torch")])
def test_cuda_tensors_take_triton_where_it_is(missing, chosen, monkeypatch):
    monkeypatch.setattr(triton_runtime, "_found", lambda: (False, missing))
    tensor = SimpleNamespace(is_cpu=False, is_cuda=True)
    assert choose_backend("selective_scan", tensor) == chosen


def test_double_backward_message_names_the_cpu_backend_by_default():
    with pytest.raises(RuntimeError, match=r"x with backend='cpu' has no second derivative"):
        native_library.refuse_double_backward("x")


@pytest.mark.parametrize(
    ("length", "programs", "num_warps", "warps_each", "wanted"),
    [
        (3137, 288, 4, 4, (1, 3137)),  # half of 4 warps for each of 4 schedulers of 132 processors
        (3137, 36, 4, 4, (15, 224)),
        (1_000_000, 36, 4, 4, (15, 66_688)),
        (1, 36, 4, 4, (1, 32)),
        (3137, 144, 1, 4, (15, 224)),  # VideoMamba-M, batch 8: the forward's tiles
        (3137, 576, 1, 12, (11, 288)),  # and the backward's
    ],
)
def test_tokens_are_cut_until_the_chip_is_full(length, programs, num_warps, warps_each, wanted):
    cut = triton_tiles.cut_segments(length, 32, programs, num_warps, 132, warps_each)
    assert cut == wanted


@pytest.mark.parametrize(
    ("channels", "state", "forward", "backward"),
    [
        (1152, 16, (2, 64, 1), (4, 16, 1)),  # those that were timed
        (1152, 64, (2, 16, 1), (4, 4, 1)),  # as many states in a warp, however they are shared out
        (1152, 1, (2, 64, 1), (4, 16, 1)),
        (3, 5, (2, 4, 1), (4, 4, 1)),
        (1152, 2048, (2, 1, 1), (4, 1, 1)),
    ],
)
def test_a_tile_fits_into_a_warp(channels, state, forward, backward):
    assert forward_tiles(channels, state) == forward
    assert backward_tiles(channels, state) == backward


def test_names_of_scan_problems_are_those_of_the_operation():
    assert set(NAMES) == set(ORDER)
