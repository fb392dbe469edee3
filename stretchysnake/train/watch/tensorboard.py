"""Numbers of a run for TensorBoard; an extra."""

from pathlib import Path

from stretchysnake.flexibility import Scale


class Board:
    """Writes one point of each number at a step."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __call__(self, step: int, *, scale: Scale, **numbers: float) -> None:
        numbers |= {"frames": scale.num_frames, "size": scale.size, "patch_size": scale.patch_size}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def open_board(folder: Path) -> Board:
    """The board that writes into `folder`; RuntimeError with the command to run where TensorBoard is missing."""
    try:
        return Board(folder)
    except ImportError:
        raise RuntimeError(
            "tensorboard (true) needs TensorBoard: pip install 'stretchysnake[tensorboard]', or leave it false"
        ) from None
