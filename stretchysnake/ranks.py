"""The ranks of a run: which this process is, its device, and what ranks say to each other. One process is the default.

Launched by torchrun (or anything that sets RANK and WORLD_SIZE), the same code trains data-parallel: every rank
draws the same scale and the same global batch, and loads and computes its share of it, so 1 rank x 2b clips and 2
ranks x b clips make the same step. What that does to a model in training is train/parallel_model.py's.
A rank that dies closes its connections, and the others end with an error.
"""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from stretchysnake.shown import first_line, shown

PATIENCE = timedelta(days=7)
"""Longest wait for work that one rank does alone, such as filling a cache: no limit in practice."""


class RankLost(RuntimeError):
    """Another rank ended, or did not answer in time."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """This process among all that train or measure together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Rank on this machine: the number of its GPU."""
    patient: dist.ProcessGroup | None = None
    """All ranks, for waits that may take long; the end of a rank is noticed at once there too."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line on standard error, once for all ranks."""
        if self.is_first:
            print(shown(text), file=sys.stderr, flush=True)

    def device(self, wanted: str) -> torch.device:
        """The device of this rank; `wanted` is "auto", "cpu", "cuda" (this rank's own GPU) or one GPU: "cuda:1".

        RuntimeError for a GPU that is not there, ValueError for one GPU for several ranks.
        """
        if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"device ({wanted}) is not there: this torch sees no GPU; check `stretchysnake doctor`, or use cpu"
            )
        device = torch.device("cuda" if wanted == "auto" else wanted)
        count = torch.cuda.device_count()
        if device.index is not None and self.world_size > 1:
            raise ValueError(
                f"device ({wanted}) is one GPU, and {self.world_size} ranks need one each; use cuda"
            )
        number = self.local_rank if device.index is None else device.index
        if number >= count:
            raise RuntimeError(
                f"device (cuda:{number}) is not there: this machine has {count} GPU{'s' * (count != 1)}, from cuda:0; "
                "use one of them, start no more ranks than there are GPUs, or use cpu"
            )
        return torch.device("cuda", number)

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum of a CPU tensor over the ranks."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks, in order, on every rank."""
        if self.world_size == 1:
            return [text]
        texts: list = [None] * self.world_size
        dist.all_gather_object(texts, text)
        return texts

    def most(self, number: int) -> int:
        """The largest of the numbers of all ranks, on every rank."""
        return max(map(int, self.gather(str(number))))

    def gather_rows(self, values: Tensor) -> list[Tensor]:
        """The CPU tensors (n, ...) of all ranks, in order, on every rank; n may differ."""
        if self.world_size == 1:
            return [values]
        counts = [int(text) for text in self.gather(str(len(values)))]
        padded = values.new_zeros(max(counts), *values.shape[1:])
        padded[: len(values)] = values
        held = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(held, padded)
        return [part[:count] for part, count in zip(held, counts, strict=True)]

    def from_first(self, text: str | None) -> str | None:
        """The text of rank 0, on every rank, however long rank 0 worked alone before it speaks."""
        if self.world_size == 1:
            return text
        holder = [text]
        dist.broadcast_object_list(holder, src=0, group=self.patient)
        return holder[0]

    def meet(self) -> None:
        """Wait for all ranks, however long the slowest takes; RuntimeError soon after one has ended."""
        if self.world_size > 1:
            dist.barrier(group=self.patient)

    @contextmanager
    def first_goes_first(self, folder: str | os.PathLike | None = None) -> Iterator[None]:
        """Rank 0 runs the block alone, then the others; for filling the frame cache, however long that takes.

        Where `folder`, which is filled, is a disk of each machine, one rank of each fills its own at the same time.
        All leave the block together: what rank 0 does next does not wait for the others' part under a limit.
        """
        goes_first = self.is_first
        if folder is not None and self.world_size > 1:
            shared = self._sees_what_first_writes(Path(folder))  # all ranks ask
            goes_first |= self.local_rank == 0 and not shared
        if not goes_first:
            self.meet()
        try:
            yield
        finally:
            if goes_first:
                self.meet()
        self.meet()

    def _sees_what_first_writes(self, folder: Path) -> bool:
        """Whether `folder` is here what it is for rank 0; all ranks call."""
        mark = folder / self.from_first(f".{secrets.token_hex(8)}.mark")
        with suppress(OSError):  # may only be read, so nobody fills it
            if self.is_first:
                folder.mkdir(parents=True, exist_ok=True)
                mark.touch()
        self.meet()
        seen = mark.exists()
        self.meet()
        with suppress(OSError):
            if self.is_first:
                mark.unlink(missing_ok=True)
        return seen


SINGLE = Runtime()


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error says that another rank ended or did not answer; gloo's are plain RuntimeErrors."""
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and ("gloo" in text or "Connection closed by peer" in text or "Connection reset" in text)
    )


def torchrun_ranks(environment: Mapping[str, str]) -> dict[str, int]:
    """rank, world_size and local_rank as torchrun says them in the environment; one process without it."""
    alone = {"rank": 0, "world_size": 1, "local_rank": 0}
    return {name: int(environment.get(name.upper(), number)) for name, number in alone.items()}


@contextmanager
def open_runtime(
    *, rank: int = 0, world_size: int = 1, local_rank: int = 0, longest_wait: float = 600.0
) -> Iterator[Runtime]:
    """The runtime of this process; with several, within it they are connected (gloo on CPU, nccl on GPUs).

    Rendezvous is torch's own (`env://`): MASTER_ADDR and MASTER_PORT, which torchrun sets. A rank waits
    `longest_wait` seconds for the others where all work alike (steps, gather); then, or when one has ended, RankLost
    says so. Where rank 0 works alone (from_first, meet, first_goes_first) only its end ends the wait.
    """
    if not longest_wait > 0:
        raise ValueError(f"rank_timeout ({longest_wait}) must be positive seconds")
    if world_size == 1:
        yield SINGLE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    wait = timedelta(seconds=longest_wait)
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=wait)
    # Not in a `finally`: after an error the other ranks wait inside a collective, and only the end of this process
    # closes its connections and ends them too.
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Runtime(rank=rank, world_size=world_size, local_rank=local_rank, patient=patient)
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        raise RankLost(
            f"rank {rank}: another rank ended, or did not answer within rank_timeout ({longest_wait:g} s); its own "
            f"message says why, if it had time for one. The same command goes on from the last checkpoint "
            f"({first_line(error, 120)})"
        ) from None
    dist.destroy_process_group()
