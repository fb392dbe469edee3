"""A torch file read so that nothing in it can run: one of torch.save, or the weights of a TorchScript archive."""

import argparse
import collections
import io
import math
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


def loaded_safely(path: Path):
    """What a torch file holds; ValueError where reading it could run code, and where it is damaged.

    Of a TorchScript archive (CLIP as OpenAI publishes it): its tensors by their dotted names; its code is not read.
    """
    if (script := _script_entries(path)) is not None:
        try:
            return _script_weights(path, *script)
        except Exception as error:
            reason = error if isinstance(error, ValueError) else "it is damaged"
            raise ValueError(
                f"checkpoint ({path}), a TorchScript archive, cannot be read safely: {reason}"
            ) from None
    _refuse_inflating(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint ({path}) cannot be read safely: {_reason(error)}; "
            "save its state dict alone as .safetensors"
        ) from None


def _reason(error: Exception) -> str:
    """Why torch refused a file, without its advice to load whatever the file holds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    if match := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", text):
        return f"it holds objects of {match[1]} beside weights, and reading them could run code"
    if isinstance(error, RuntimeError):
        return f"it is damaged ({text[:80]})"
    return "it is no file of torch.save, damaged, or holds objects other than weights"


def _zip_entries(path: Path) -> list[zipfile.ZipInfo] | None:
    """What a zip file lists; None where it is none, or is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return None


def _refuse_inflating(path: Path) -> None:
    """ValueError for a zip file that is larger unpacked than it is, or repeats a name: torch writes neither."""
    entries = _zip_entries(path)
    if entries is None:
        return  # the older format, or damage: what reads it next will say
    names = [entry.filename for entry in entries]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or len(set(names)) < len(names):
        raise ValueError(
            f"checkpoint ({path}) cannot be read safely: its entries are compressed or repeated "
            f"({unpacked} bytes unpacked), which torch never writes"
        )


# TorchScript: a zip file with code/, constants.pkl, data.pkl (the module's attributes) and data/N (raw storages).

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MOST_ATTRIBUTES = 100_000
"""Of all modules together; a module that holds another many times over could name any number."""


class _Stored(NamedTuple):
    """A tensor as the pickle describes it; made only after all of the pickle is read."""

    storage: tuple
    """(dtype, name, elements)."""
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _script_entries(path: Path) -> tuple[str, dict[str, int]] | None:
    """(folder inside, sizes of its entries) where a file is a TorchScript archive, else None."""
    entries = _zip_entries(path)
    if entries is None:
        return None
    names = [entry.filename for entry in entries]
    folder = next(
        (n.removesuffix("constants.pkl") for n in names if n.endswith("/constants.pkl")), ""
    )
    if not folder or f"{folder}data.pkl" not in names:
        return None
    read = [e for e in entries if e.filename.startswith((f"{folder}data.pkl", f"{folder}data/"))]
    packed = [e.filename for e in read if e.compress_type != zipfile.ZIP_STORED]
    sizes = {entry.filename: entry.file_size for entry in read}
    if packed or len(sizes) < len(read) or sum(sizes.values()) > path.stat().st_size:
        raise ValueError(
            f"checkpoint ({path}) cannot be read safely: its weights are compressed or repeated, "
            "which torch never writes"
        )
    return folder, sizes


def _script_weights(path: Path, folder: str, sizes: dict[str, int]) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as file:
        if f"{folder}byteorder" in file.namelist() and sizes:
            with file.open(f"{folder}byteorder") as entry:
                if entry.read(16).strip() == b"big":
                    raise ValueError("its numbers are big-endian")
        pickled = file.read(f"{folder}data.pkl")
        _refuse_opcodes(pickled)
        stored = _named(_Attributes(io.BytesIO(pickled)).load())
        raw: dict[str, Tensor] = {}
        return {name: _made(name, one, file, folder, sizes, raw) for name, one in stored.items()}


def _refuse_opcodes(pickled: bytes) -> None:
    """ValueError for a pickle that asks for more memory than it is long, or for what torch does not write."""
    for opcode, value, _ in pickletools.genops(pickled):
        if opcode.name.startswith(("EXT", "BYTEARRAY", "NEXT_BUFFER", "READONLY", "INST", "OBJ")):
            raise ValueError(f"its data.pkl holds {opcode.name}, which torch does not write")
        if opcode.name in ("PUT", "LONG_BINPUT") and int(value) > len(pickled):
            raise ValueError("its data.pkl numbers more objects than it holds")


class _Attributes(pickle.Unpickler):
    """Modules as plain objects with attributes, tensors as _Stored; any other class is a ValueError."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.module = type("Module", (), {})  # anew for each file, which may change it

    def find_class(self, module: str, name: str):
        if module == "__torch__" or module.startswith("__torch__."):
            return self.module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Stored(storage, offset, size, stride)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda values, *_: values
        raise ValueError(
            f"it holds objects of {module}.{name} beside weights, and reading them could run code"
        )

    def persistent_load(self, pid):
        kind, dtype, name, _, elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"a storage of kind {kind!r} is not known")
        return dtype, str(name), elements


def _named(module) -> dict[str, _Stored]:
    """Every tensor by the dotted names that lead to it."""
    tensors: dict[str, _Stored] = {}
    ahead, count = [("", module, ())], 0
    while ahead:
        prefix, inner, above = ahead.pop()
        count += 1 + len(vars(inner))
        if count > _MOST_ATTRIBUTES or id(inner) in above or len(above) > 100:
            raise ValueError("its modules hold themselves or too many others")
        for name, value in vars(inner).items():
            if isinstance(value, _Stored):
                tensors[f"{prefix}{name}"] = value
            elif type(value) is type(module):
                ahead.append((f"{prefix}{name}.", value, (*above, id(inner))))
    return tensors


def _made(
    name: str, one: _Stored, file: zipfile.ZipFile, folder: str, sizes: dict[str, int], raw: dict
) -> Tensor:
    """The tensor, once its sizes are those of a part of its storage."""
    (dtype, key, elements), offset, size, stride = one
    numbers = (elements, offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(
        stride
    ):
        raise ValueError(
            f"{name} has a size that is none: {size}, stride {stride}, offset {offset}"
        )
    entry = f"{folder}data/{key}"
    held = sizes.get(entry, -1) // dtype.itemsize
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if elements > held or math.prod(size) > elements or (0 not in size and last >= elements):
        raise ValueError(f"{name} claims shape {tuple(size)}, more than the file holds")
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    if key not in raw:
        raw[key] = torch.frombuffer(bytearray(file.read(entry)), dtype=torch.uint8)
    whole = raw[key][: elements * dtype.itemsize].view(dtype)
    return whole.as_strided(size, stride, offset)
