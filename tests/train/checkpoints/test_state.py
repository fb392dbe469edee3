"""What a checkpoint is ranked by: the mean loss of the steps since the one before."""

from tiny_run import state_of, tiny_run

from stretchysnake.ranks import SINGLE
from stretchysnake.train.checkpoints.checkpoint import read_state
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.saving import Saver


def test_the_last_checkpoints_are_kept_whatever_their_losses(tmp_path):
    run = tiny_run(depth=1, precision="fp32")
    state, saver = state_of(run), Saver(tmp_path, run, metadata={}, key="k", log=RunLog(None))
    for step, losses in ((1, [1.0]), (3, [2.0, 4.0]), (4, [5.0])):
        state.losses += [(len(state.losses), loss) for loss in losses]
        state.step = step
        saver.save(state, runtime=SINGLE)
        assert read_state(tmp_path / f"step-{step:08d}")["step"] == step
    kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert kept == ["step-00000003", "step-00000004"]  # the first had the lowest loss
