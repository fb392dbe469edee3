"""A torch file read so that nothing in it can run."""

import argparse
import re
import zipfile
from pathlib import Path

import torch


def loaded_safely(path: Path):
    """What a torch file holds; ValueError where reading it could run code, and where it is damaged."""
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
    if found := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", text):
        return f"it holds objects of {found[1]} beside weights, and reading them could run code"
    if isinstance(error, RuntimeError):
        return f"it is damaged ({text[:80]})"
    return "it is no file of torch.save, damaged, or holds objects other than weights"


def _refuse_inflating(path: Path) -> None:
    """ValueError for a zip file that is larger unpacked than it is, or repeats a name: torch writes neither."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return  # the older format, or damage: what reads it next will say
    names = [entry.filename for entry in entries]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or len(set(names)) < len(names):
        raise ValueError(
            f"checkpoint ({path}) cannot be read safely: its entries are compressed or repeated "
            f"({unpacked} bytes unpacked), which torch never writes"
        )
