"""Columns in one file, each mapped by itself: written in the layout of safetensors, so that any reader of it has them.

    8 bytes         length of the header, little-endian
    header          JSON: name -> dtype, shape, first and last byte; blanks up to a multiple of 8
    data            the columns one after the other, those of 8-byte numbers first, so that each is aligned

Text is two columns: `NAME.text`, the UTF-8 of all values in a row, and `NAME.ends`, where each of them ends.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

_DTYPES = {"<i8": "I64", "<f8": "F64", "|u1": "U8", "|b1": "BOOL"}
_LARGEST_HEADER = 2**20


def column_bytes(columns: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The content of a file of these columns, piece by piece."""
    ordered = sorted(columns.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header, place = {}, 0
    for name, column in ordered:
        dtype, end = _DTYPES[column.dtype.str], place + column.nbytes
        header[name] = {"dtype": dtype, "shape": list(column.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, column in ordered:
        yield memoryview(np.ascontiguousarray(column)).cast("B") if column.size else b""


def map_columns(path: Path) -> dict[str, np.ndarray]:
    """Name -> column, read-only, mapped from the file; ValueError where it is not as long as its header says."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{path.name} has no header")
        header = json.loads(file.read(length))
    names, first = {ours: dtype for dtype, ours in _DTYPES.items()}, 8 + length
    if size != first + max(one["data_offsets"][1] for one in header.values()):
        raise ValueError(f"{path.name} is not as long as its header says")
    # of plain arrays an element is read in a fifth of the time that np.memmap takes
    content = np.memmap(path, "u1", "r").view(np.ndarray)
    columns = {}
    for name, one in header.items():
        start, end = one["data_offsets"]
        column = content[first + start : first + end].view(names[one["dtype"]])
        columns[name] = column.reshape(one["shape"])
    return columns


def encoded_text(text: str) -> bytes:
    """UTF-8 in the order of the text; names of files that are not UTF-8 (lone surrogates, to Python) included."""
    return text.encode("utf-8", "surrogatepass")


def decoded_text(content: bytes) -> str:
    """What `encoded_text` made the bytes of; UnicodeDecodeError, a ValueError, for others."""
    return content.decode("utf-8", "surrogatepass")
