"""The bytes that tensors hold while they live, summed from every storage that an operation makes.

Also those of meta tensors, which hold none: a step can be measured that no memory here would take.
"""

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """A context: `now` bytes are alive of what operations made in it, `peak` were at once.

    Storages of the tensors given are not counted. What a kernel needs inside itself is not seen.
    """

    def __init__(self, uncounted: Iterable[Tensor] = ()):
        super().__init__()
        self.live = {tensor.untyped_storage()._cdata for tensor in uncounted}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.upsample_bicubic2d.default and args[0].is_meta:
            # torch's own answer computes all sixteen taps in Python: 0.2 s, and tensors that no device makes
            made = args[0].new_empty((*args[0].shape[:2], *args[1]))
        else:
            made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self.live or not size:
            return
        self.live.add(address)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self.live.discard(address)
        self.now -= size
