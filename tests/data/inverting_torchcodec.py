"""A torchcodec for tests without it: the frames that PyAV decodes, in their colours' complement."""

import sys
import types

import torch

from stretchysnake.data.decoding.video import packet_index, read_frames


class VideoDecoder:
    metadata = types.SimpleNamespace(begin_stream_seconds=0.0, rotation=0)

    def __init__(self, path, **options):
        self.path, self.index = path, packet_index(path)

    def get_frames_at(self, indices):
        return types.SimpleNamespace(
            data=torch.from_numpy(255 - read_frames(self.path, indices)),
            pts_seconds=torch.tensor([self.index.seconds(i) for i in indices]),
        )


def install(monkeypatch):
    """Until the test ends, `torchcodec.decoders.VideoDecoder` is the one above, here and in forked processes."""
    decoders = types.ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = VideoDecoder
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)


def remove(monkeypatch):
    """Until the test ends, torchcodec is not installed."""
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
