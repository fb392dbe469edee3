"""What a checkpoint is ranked by: the mean loss of the steps since the one before."""

from tiny_run import state_of, tiny_run

from stretchysnake.train.checkpoint import read_state
from stretchysnake.train.outputs import RunLog
from stretchysnake.train.runtime import SINGLE
from stretchysnake.train.saving import Saver


def test_checkpoint_is_ranked_by_the_losses_since_the_one_before(tmp_path):
    run = tiny_run(depth=1, precision="fp32")
    state, saver = state_of(run), Saver(tmp_path, run, metadata={}, key="k", log=RunLog(None))
    wanted = {1: 8.0, 3: 3.0, 4: 5.0}
    for step, losses in ((1, [8.0]), (3, [2.0, 4.0]), (4, [5.0])):
        state.losses += [(len(state.losses), loss) for loss in losses]
        state.step = step
        saver.save(state, runtime=SINGLE)
        path = tmp_path / f"step-{step:08d}"
        assert read_state(path)["mean_loss"] == wanted[step]
    assert not (tmp_path / "step-00000001").exists()  # the last two, and the best among them
