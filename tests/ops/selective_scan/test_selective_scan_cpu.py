"""What is particular to the native scan: threads, instruction sets, forks, a missing library."""

import gc
import os
import signal

import pytest
import torch
from scan_problems import expected, make_inputs, relative_rms, run_with_gradients
from torch.utils.data import DataLoader, Dataset

from stretchysnake.ops.causal_conv.convolution import causal_conv_silu
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native.library import is_available, unavailable_reason
from stretchysnake.ops.selective_scan.scan import selective_scan

needs_native = pytest.mark.skipif(not is_available(), reason="native library not built")


@pytest.fixture
def num_threads():
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """The package as installed without a compiler."""
    monkeypatch.setattr(native_library, "LIBRARY_PATH", tmp_path / "libstretchysnake.so")
    native_library._open.cache_clear()
    yield
    native_library._open.cache_clear()


@needs_native
@pytest.mark.parametrize("batch", [1, 2, 3, 5], ids="B{}".format)
def test_thread_counts_agree(batch, num_threads):
    inputs = make_inputs(900 // batch, 49, 16, batch=batch, dtype=torch.float32)
    num_threads(1)
    one = run_with_gradients(inputs)
    for threads in (2, 3):
        num_threads(threads)
        several = run_with_gradients(inputs)
        for name in ("y", "final_state", "grad u", "grad delta", "grad z", "grad initial_state"):
            assert torch.equal(several[name], one[name]), name
        for name in ("grad A", "grad B", "grad C", "grad D", "grad delta_bias"):
            assert relative_rms(several[name], one[name]) < 1e-6, name


@needs_native
def test_repeated_runs_are_bitwise_equal(num_threads):
    num_threads(2)
    inputs = make_inputs(300, 49, 16, batch=3, dtype=torch.float32)
    first, second = run_with_gradients(inputs), run_with_gradients(inputs)
    for name in first:
        assert torch.equal(first[name], second[name]), name


@needs_native
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_of_this_processor_matches_reference(name):
    library, best = native_library.load(), native_library.instruction_set()
    if library.stretchysnake_use_instruction_set(name.encode()):
        pytest.skip(f"this processor or build has no {name}")
    try:
        found = run_with_gradients(make_inputs(65, 33, 17, dtype=torch.float32), backend="cpu")
    finally:
        assert library.stretchysnake_use_instruction_set(best.encode()) == 0
    for key, wanted in expected(65, 33, 17, False).items():
        assert relative_rms(found[key], wanted) < 1e-5, key


@needs_native
def test_exponential_is_accurate_over_its_range():
    # One step with B u = 0 and C = 1 turns the scan into y = exp(delta A) h.
    exponents = torch.linspace(-100, 88, 20001)
    shape = (1, 1, len(exponents))
    zeros, one = torch.zeros(shape), torch.ones(1, 1, 1)
    state = torch.ones(1, len(exponents), 1)
    found = selective_scan(
        zeros, -exponents.view(shape), -torch.ones(len(exponents), 1), one, one,
        initial_state=state, backend="cpu",
    ).flatten()  # fmt: skip
    wanted = exponents.double().exp()
    normal = wanted >= torch.finfo(torch.float32).tiny
    error = ((found.double() - wanted) / wanted)[normal].abs()
    # exp(x) costs |x| half-ulps of the rounded product x log2(e), and about two ulps of its own.
    assert (error <= 6e-8 * (2 * exponents[normal].abs() + 4)).all()
    assert (found[exponents < -88] == 0).all()


@needs_native
def test_scan_starts_its_threads_in_a_forked_process(monkeypatch):
    # torch's own operations may hang in a fork once its OpenMP pool has run, so the child runs
    # nothing but the scan; DataLoader workers avoid it by torch.set_num_threads(1).
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    inputs = make_inputs(400, 49, 16, dtype=torch.float32)
    wanted = selective_scan(**inputs, backend="cpu")
    child = os.fork()
    if child == 0:
        gc.freeze()  # as in tests/search/killed_at.py
        signal.alarm(20)  # a hang ends the child, not the test run
        found = selective_scan(**inputs, backend="cpu")
        os._exit(0 if found.numpy().tobytes() == wanted.numpy().tobytes() else 1)
    assert os.waitpid(child, 0)[1] == 0


class _ScanInWorker(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return run_with_gradients(make_inputs(20, 9, 4, dtype=torch.float32, seed=index))["grad A"]


@needs_native
def test_scan_and_gradients_run_in_dataloader_workers():
    loader = DataLoader(
        _ScanInWorker(),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="fork",
        timeout=300,
    )
    for index, there in enumerate(loader):
        assert torch.equal(there, _ScanInWorker()[index])


@needs_native
def test_double_backward_is_refused():
    inputs = make_inputs(4, 3, 2)
    inputs["u"].requires_grad_()
    y = selective_scan(**inputs, backend="cpu")
    with pytest.raises(RuntimeError, match=r"selective_scan with backend='cpu' has no second deri"):
        torch.autograd.grad(y.sum(), inputs["u"], create_graph=True)


def test_missing_library_named_with_the_command_to_run(no_library):
    inputs = make_inputs(4, 3, 2)
    with pytest.raises(RuntimeError, match=r"not found: run `pip install \.` with a C\+\+ compil"):
        selective_scan(**inputs, backend="cpu")
    with pytest.raises(RuntimeError, match=r"backend 'cpu' is not available"):
        causal_conv_silu(inputs["u"], torch.zeros(3, 4), None, backend="cpu")
    assert not is_available()
    assert "libstretchysnake.so not found" in unavailable_reason()


def test_missing_library_leaves_auto_working(no_library):
    inputs = make_inputs(4, 3, 2)
    wanted = selective_scan(**inputs, backend="reference")
    torch.testing.assert_close(selective_scan(**inputs), wanted)


def test_damaged_library_is_reported(no_library):
    native_library.LIBRARY_PATH.write_bytes(b"not a library")
    assert "does not load" in unavailable_reason()


@needs_native
def test_native_backend_refuses_tensors_elsewhere():
    inputs = {n: t.to("meta") for n, t in make_inputs(4, 3, 2).items()}
    with pytest.raises(ValueError, match=r"u \(device meta\) must be on the CPU"):
        selective_scan(**inputs, backend="cpu")
