"""Weights of TorchScript archives, as OpenAI publishes CLIP: read without running any of what is in them."""

import io
import os
import pickle
import pickletools
import warnings
import zipfile

import pytest
import torch
from torch import nn

from stretchysnake.models.weights.torch_file import loaded_safely


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False)
        self.embedding = nn.Parameter(torch.arange(4.0))
        self.register_buffer("count", torch.tensor(3))
        self.names = ["a", "b"]
        self.sides: tuple[int, int] = (2, 2)
        self.rest = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

    def forward(self, x):
        return self.rest(self.conv1(x).flatten(2).transpose(1, 2))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Part()
        self.again = nn.Linear(4, 4)
        self.again.weight = self.visual.rest[0].weight
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.again(self.visual(x)) * self.scale


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    torch.manual_seed(0)
    whole = Whole().half()
    whole.again.bias.data = torch.arange(8.0)[::2]  # a storage that is only read in part
    path = tmp_path_factory.mktemp("script") / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself, in newer torch
        torch.jit.script(whole).save(str(path))
    return path, whole


def with_entry(path, out, name, content):
    """A copy of the archive with another content of one entry, or without it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("/" + name):
                new.writestr(entry, old.read(entry))
            elif content is not None:
                new.writestr(entry, content, compress_type=zipfile.ZIP_STORED)
    return out


def entry_of(path, name):
    with zipfile.ZipFile(path) as file:
        return next(file.read(one) for one in file.namelist() if one.endswith("/" + name))


def test_tensors_are_those_of_the_module(archive, monkeypatch):
    path, whole = archive
    monkeypatch.setattr(torch.jit, "load", None)  # nothing may be run
    found = loaded_safely(path)
    wanted = whole.state_dict()
    assert found.keys() == wanted.keys() and "visual.rest.1.weight" in found
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_code_is_not_even_read(archive, tmp_path):
    path, whole = archive
    out = tmp_path / "broken_code.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            code = "/code/" in entry.filename
            new.writestr(entry, b"import os; os.abort()" if code else old.read(entry))
    assert torch.equal(loaded_safely(out)["scale"], whole.scale)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("inside", [False, True])
def test_pickle_that_calls_anything_is_refused_and_not_run(archive, tmp_path, inside):
    path, _ = archive
    trace = tmp_path / "ran"
    evil = pickle.dumps({"visual": Evil(trace)} if inside else Evil(trace), protocol=2)
    out = with_entry(path, tmp_path / "evil.pt", "data.pkl", evil)
    with pytest.raises(ValueError, match=r"objects of (posix|nt)\.mkdir beside weights.*run code"):
        loaded_safely(out)
    assert not trace.exists()


def test_names_of_torch_that_are_no_weights_are_refused(archive, tmp_path):
    path, _ = archive
    for text in (
        b"ctorch.hub\nload\n(X\x01\x00\x00\x00atR.",
        b"ctorch\nload\n(X\x01\x00\x00\x00atR.",
    ):
        out = with_entry(path, tmp_path / "hub.pt", "data.pkl", b"\x80\x02" + text)
        with pytest.raises(ValueError, match=r"TorchScript archive, cannot be read safely: .*load"):
            loaded_safely(out)


def test_tensor_that_claims_more_than_its_storage_is_refused(archive, tmp_path):
    path, _ = archive
    pickled = entry_of(path, "data.pkl")
    # the shape of conv1's kernel: BININT1 4, 3, 2, 2
    shape = b"(K\x04K\x03K\x02K\x02t"
    assert pickled.count(shape) == 1
    for changed in (b"(K\x04K\x03K\x02K\xfft", b"(K\x05K\x03K\x02K\x02t"):
        larger = pickled.replace(shape, changed)
        out = with_entry(path, tmp_path / "large.pt", "data.pkl", larger)
        with pytest.raises(
            ValueError, match=r"visual.conv1.weight claims shape .*more than the file holds"
        ):
            loaded_safely(out)
    strides = b"(K\x0cK\x04K\x02K\x01t"
    assert pickled.count(strides) == 1
    out = with_entry(
        path, tmp_path / "far.pt", "data.pkl", pickled.replace(strides, b"(K\x0dK\x04K\x02K\x01t")
    )
    with pytest.raises(ValueError, match=r"visual.conv1.weight claims shape"):
        loaded_safely(out)
    gone = with_entry(path, tmp_path / "gone.pt", "data/0", None)
    with pytest.raises(ValueError, match="more than the file holds"):
        loaded_safely(gone)


def test_compressed_weights_and_memory_that_a_pickle_asks_for_are_refused(archive, tmp_path):
    path, _ = archive
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed or repeated, which torch never writes"):
        loaded_safely(packed)
    for pickled, text in (
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers more objects than it holds"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "cannot be read safely"),
        (b"\x80\x02N", "cannot be read safely"),
    ):
        out = with_entry(path, tmp_path / "memory.pt", "data.pkl", pickled)
        with pytest.raises(ValueError, match=text):
            loaded_safely(out)


def test_module_that_holds_itself_is_refused(archive, tmp_path):
    path, _ = archive
    # obj = M(); obj.__dict__ = {"a": obj}
    cyclic = b"\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub."
    assert [op.name for op, _, _ in pickletools.genops(cyclic)][-2:] == ["BUILD", "STOP"]
    out = with_entry(path, tmp_path / "cyclic.pt", "data.pkl", cyclic)
    with pytest.raises(ValueError, match="hold themselves or too many others"):
        loaded_safely(out)


def test_files_of_torch_save_are_read_as_before(tmp_path):
    path = tmp_path / "plain.pt"
    torch.save({"a": torch.arange(3)}, path)
    assert torch.equal(loaded_safely(path)["a"], torch.arange(3))
    held = io.BytesIO()
    torch.save(Evil(tmp_path / "ran"), held)
    path.write_bytes(held.getvalue())
    with pytest.raises(ValueError, match=r"mkdir beside weights"):
        loaded_safely(path)
    assert not (tmp_path / "ran").exists()
