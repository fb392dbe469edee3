"""What torch knows of the native operations: fake kernels, autograd, FLOPs, compilation."""

import subprocess
import sys

import pytest
import torch
from scan_problems import make_inputs
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.ops import causal_conv_silu, selective_scan
from stretchysnake.ops.flops import (
    causal_conv_flops,
    selective_scan_backward_flops,
    selective_scan_flops,
)
from stretchysnake.ops.native import library as native_library

pytestmark = pytest.mark.skipif(
    not native_library.is_available(), reason=f"{native_library.unavailable_reason()}"
)
ORDER = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


@pytest.mark.parametrize("optional", [True, False], ids=["all inputs", "required inputs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_scan_passes_torchs_operator_checks(dtype, optional):
    inputs = make_inputs(35, 9, 3, dtype=dtype)
    for name in () if optional else ("D", "z", "delta_bias", "initial_state"):
        inputs[name] = None
    tensors = [None if inputs[n] is None else inputs[n].requires_grad_() for n in ORDER]
    torch.library.opcheck(
        torch.ops.stretchysnake.selective_scan, (*tensors, None, True, False, True)
    )


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_passes_torchs_operator_checks(bias):
    inputs = make_inputs(11, 9, 4, dtype=torch.float32)
    tensors = inputs["u"].requires_grad_(), inputs["A"].requires_grad_()
    tensors += (inputs["D"].requires_grad_() if bias else None,)
    torch.library.opcheck(torch.ops.stretchysnake.causal_conv_silu, (*tensors, None, True))


def test_flop_counter_counts_both_directions_of_time():
    inputs = {n: t.requires_grad_() for n, t in make_inputs(35, 9, 3, dtype=torch.float32).items()}
    with FlopCounterMode(display=False) as counter:
        u = causal_conv_silu(inputs["u"], inputs["C"][0, :9].detach()[:, :3].contiguous(), None)
        y = selective_scan(**(inputs | {"u": u}), delta_softplus=True)
    assert counter.get_total_flops() == selective_scan_flops(2, 35, 9, 3) + causal_conv_flops(
        2, 35, 9, 3
    )
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    wanted = selective_scan_backward_flops(2, 35, 9, 3) + 3 * causal_conv_flops(2, 35, 9, 3)
    assert counter.get_total_flops() == wanted


def test_compiled_scan_is_the_eager_one_and_stays_one_operation():
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    inputs = make_inputs(35, 9, 3, dtype=torch.float32)
    compiled = torch.compile(
        lambda **t: selective_scan(**t, delta_softplus=True), backend=backend, fullgraph=True
    )
    torch.testing.assert_close(
        compiled(**inputs), selective_scan(**inputs, delta_softplus=True), rtol=0, atol=0
    )
    assert any("stretchysnake.selective_scan" in name for name in seen)


def test_exported_program_holds_plain_operations_only():
    class Scan(torch.nn.Module):
        def forward(self, u, delta, A, B, C):
            return selective_scan(u, delta, A, B, C, delta_softplus=True)

    inputs = make_inputs(6, 4, 3, dtype=torch.float32)
    arguments = tuple(inputs[name] for name in ORDER[:5])
    program = torch.export.export(Scan(), arguments)
    assert "stretchysnake" not in str(program.graph)
    torch.testing.assert_close(
        program.module()(*arguments), Scan()(*arguments), rtol=1e-5, atol=1e-5
    )


def test_nothing_of_torchs_compiler_is_imported_before_something_is_compiled():
    script = (
        "import sys, torch; from stretchysnake import VideoMamba, VideoMambaConfig\n"
        "model = VideoMamba(VideoMambaConfig.named('nano', num_classes=2))\n"
        "model(torch.zeros(1, 3, 2, 16, 16)).sum().backward()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
