"""Processes for work of our own: results in order, a death told, and nothing of the parent's freed."""

import gc
import os

import pytest

from stretchysnake.data.processes.workers import map_in_processes


def half(number):
    return number / 2


def collect(_):
    gc.collect()
    return os.getpid()


def die(_):
    os._exit(9)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(num_workers):
    assert list(map_in_processes(half, range(7), num_workers=num_workers)) == [
        0.0,
        0.5,
        1.0,
        1.5,
        2.0,
        2.5,
        3.0,
    ]


def test_two_processes_share_the_work_and_fewer_than_two_do_it_here():
    assert os.getpid() not in set(map_in_processes(collect, range(4), num_workers=2))
    assert set(map_in_processes(collect, range(4), num_workers=1)) == {os.getpid()}
    assert set(map_in_processes(collect, range(1), num_workers=2)) == {os.getpid()}


def test_a_process_that_dies_is_told_and_not_waited_for():
    with pytest.raises(RuntimeError, match=r"a worker process died .* try num_workers=1"):
        list(map_in_processes(die, range(2), num_workers=2))


class Left:
    """What waits for its process's threads when it is freed, as FFmpeg's scaler does; here it says where it was."""

    def __init__(self, told):
        self.told, self.itself, self.owner = told, self, os.getpid()

    def __del__(self):
        if os.getpid() != self.owner:
            self.told.write_text(f"freed in {os.getpid()}")


def test_workers_free_nothing_the_parent_left_behind(tmp_path):
    gc.disable()
    try:
        Left(tmp_path / "told")
        assert os.getpid() not in set(map_in_processes(collect, range(4), num_workers=2))
        assert gc.isenabled() is False  # as it was
    finally:
        gc.enable()
    list(map_in_processes(collect, range(2), num_workers=2))
    assert gc.isenabled()
    assert not (tmp_path / "told").exists()
