"""What this installation can and cannot do, checked and not only looked up."""

import importlib.util
import time
from importlib import metadata

import torch

from stretchysnake.ops.add_rms_norm import add_rms_norm
from stretchysnake.ops.bidirectional_scan.direction import Direction
from stretchysnake.ops.bidirectional_scan.scan import bidirectional_scan
from stretchysnake.ops.causal_conv.convolution import causal_conv_silu
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.selective_scan.scan import selective_scan
from stretchysnake.ops.triton import runtime as triton_runtime

EXTRAS = {
    "av": None,
    "jsonargparse": None,
    "matplotlib": "report",
    "jinja2": "report",
    "sklearn": "probe",
    "rich": "progress",
    "tensorboard": "tensorboard",
    "torchcodec": "torchcodec",
    "faiss": "faiss",
    "lancedb": "lancedb",
    "onnx": "export",
    "huggingface_hub": "hub",
}
LIMIT = 1e-5  # relative to each tensor's largest value


def doctor() -> tuple[bool, list[str]]:
    """Whether what is there works, and the lines to print: versions, backend per operation, a check, fixes."""
    from stretchysnake import __version__

    threads = torch.get_num_threads()
    lines = [f"stretchysnake {__version__}, torch {torch.__version__}, {threads} threads"]
    missing = native_library.unavailable_reason()
    if missing is None:
        lines.append(f"native CPU kernels: yes, instruction set {native_library.instruction_set()}")
    else:
        lines.append(
            f"native CPU kernels: no ({missing}); scans run in PyTorch, several times slower"
        )
    backends = ["torch"] if missing else ["torch", "cpu"]
    for operation in ("selective_scan", "causal_conv_silu"):
        lines.append(f"{operation} on the CPU: backend {backends[-1]!r}")
    no_triton = triton_runtime.unavailable_reason()
    if no_triton is not None:
        lines.append(f"Triton GPU kernels: no ({no_triton})")
    elif triton_runtime.is_interpreted():
        lines.append("Triton GPU kernels: run by the interpreter (TRITON_INTERPRET=1), very slow")
    else:
        lines.append("Triton GPU kernels: yes, backend 'triton' for CUDA tensors")
        backends.append("triton")
    sound = True
    for backend in backends:
        started = time.perf_counter()
        name, error = worst_error(backend)
        sound = sound and error <= LIMIT
        verdict = (
            "good" if error <= LIMIT else f"WRONG (above {LIMIT:.0e}): report it with this text"
        )
        lines.append(
            f"check of {backend!r} against fp64, outputs and gradients: largest error {error:.1e} "
            f"({name}), {verdict} [{time.perf_counter() - started:.1f} s]"
        )
    lines.append(f"GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    for module, extra in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        command = f"pip install 'stretchysnake[{extra}]'" if extra else f"pip install {module}"
        lines.append(f"{module}: {'yes' if there else 'no, ' + command}")
    for good, line in [decoding(), *shipped_weights()]:
        sound = sound and good
        lines.append(line)
    return sound, lines


def decoding() -> tuple[bool, str]:
    """Whether PyAV gives a BT.709 frame, as nearly all HD video is coded, in its colours; and the line that says so."""
    if importlib.util.find_spec("av") is None:
        return False, "no video can be read without av"
    from stretchysnake.data.decode_error import DecodeError
    from stretchysnake.data.decoding.colour_check import SHOWN, decoded_colour

    began = f"av {metadata.version('av')}, check of a BT.709 frame: "
    try:
        found = decoded_colour()
    except (RuntimeError, DecodeError) as error:
        return False, f"{began}WRONG, {error}"
    if max(abs(a - b) for a, b in zip(found, SHOWN, strict=True)) <= 3:
        return True, f"{began}{found} for {SHOWN}, good"
    return False, f"{began}{found} for {SHOWN}, WRONG colours: pip install --upgrade av"


def shipped_weights() -> list[tuple[bool, str]]:
    """Of each model that comes with the package: whether it loads and gives the features stored; the line that says."""
    from stretchysnake.models.weights.shipped.probes import LIMIT as FEATURES_LIMIT
    from stretchysnake.models.weights.shipped.probes import feature_error
    from stretchysnake.models.weights.shipped.shipped import all_shipped

    told = []
    for model in all_shipped().values():
        began = f"weights {model.name}, features of two made clips against those stored: "
        try:
            trained, error = model.trained, feature_error(model)
        except (OSError, ValueError, KeyError) as problem:
            told.append((False, f"{began}WRONG, {problem}; install the package again"))
            continue
        good = error <= FEATURES_LIMIT
        verdict = (
            "good" if good else f"WRONG (above {FEATURES_LIMIT:.0e}): report it with this text"
        )
        told.append(
            (good, f"{began}largest difference {error:.1e}, {verdict} ({trained['trained_on']})")
        )
    return told


def worst_error(backend: str) -> tuple[str, float]:
    """(tensor, error) of every operation, in both directions, against the plain composition in fp64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    length, channels, state = 67, 37, 16  # no multiple of a vector, a chunk or a block
    scan = {
        "u": normal(2, length, channels),
        "delta": 0.5 * normal(2, length, channels),
        "A": -torch.arange(1.0, state + 1).repeat(channels, 1),
        "B": normal(2, length, state),
        "C": normal(2, length, state),
        "D": normal(channels),
        "z": normal(2, length, channels),
        "delta_bias": normal(channels) - 3,
    }
    conv = {"x": scan["u"], "weight": normal(channels, 4), "bias": normal(channels)}
    both = {"xz": normal(2, length, 2 * channels)}
    for way in ("forward", "backward"):
        shapes = {
            **{"conv_weight": (channels, 4), "conv_bias": (channels,)},
            **{"x_proj": (5 + 2 * state, channels), "dt_proj": (channels, 5)},
            **{"dt_bias": (channels,), "A_log": (channels, state), "D": (channels,)},
        }
        both |= {f"{way} {name}": 0.3 * normal(*shape) for name, shape in shapes.items()}
    norm = {"x": scan["u"], "residual": scan["delta"], "weight": normal(channels)}
    worst = ("", 0.0)
    for reverse in (False, True):
        for inputs, operation in (
            (scan, lambda backend, **t: selective_scan(**t, delta_softplus=True, backend=backend)),
            (conv, lambda backend, **t: causal_conv_silu(**t, backend=backend)),
            (both, _bidirectional),
            (norm, _norm),
        ):
            found = _with_gradients(operation, inputs, torch.float32, reverse, backend)
            exact = _with_gradients(operation, inputs, torch.float64, reverse, "reference")
            for name, wanted in exact.items():
                error = (found[name].cpu().double() - wanted).abs().max() / wanted.abs().max()
                if not error <= worst[1]:  # also where it is NaN
                    worst = (name, float(error))
    return worst


def _bidirectional(backend: str, *, reverse: bool, xz: torch.Tensor, **parameters: torch.Tensor):
    directions = [
        Direction(*(parameters[f"{way} {name}"] for name in Direction._fields))
        for way in ("forward", "backward")
    ]
    return bidirectional_scan(xz, *(directions[::-1] if reverse else directions), backend=backend)


def _norm(backend: str, *, reverse: bool, **tensors: torch.Tensor) -> torch.Tensor:
    y, total = add_rms_norm(**tensors, backend="cpu" if backend == "cpu" else "torch")
    return y + total


def _with_gradients(operation, inputs: dict, dtype: torch.dtype, reverse: bool, backend: str):
    device = "cuda" if backend == "triton" else "cpu"
    leaves = {name: tensor.to(device, dtype).requires_grad_() for name, tensor in inputs.items()}
    y = operation(backend, reverse=reverse, **leaves)
    weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y).to(y.device)
    gradients = torch.autograd.grad(y, list(leaves.values()), weights)
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {"output": y.detach(), **named}
