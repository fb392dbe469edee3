"""Slots are apart from each other, free when nothing shows them, and written by processes without a copy."""

import gc
import os

import numpy as np
import pytest
import torch

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.processes.decoder_pool import DecoderPool
from stretchysnake.data.processes.nursery import nursery
from stretchysnake.data.processes.shared_memory import ClipMemory, SharedMemory, pages, slot_array


def test_slots_lie_apart_and_are_free_again_when_the_last_array_is_gone():
    memory = SharedMemory(3 * pages(1))
    slots = [memory.take(5000), memory.take(10)]
    assert memory.take(1) is None
    assert slots[0].offset + 5000 <= slots[1].offset
    shown = torch.from_numpy(memory.array(slots[0], (50, 100)))
    part = shown[3:, 7]
    memory.array(slots[1], (10,))[:] = 9
    assert memory.take(1).offset == slots[1].offset
    del shown
    assert memory.take(5000) is None  # `part` still shows it
    del part
    gc.collect()
    assert memory.take(5000) == slots[0]


def test_gaps_that_touch_become_one():
    memory = SharedMemory(4 * pages(1))
    slots = [memory.take(1) for _ in range(4)]
    for slot in (slots[1], slots[3], slots[2]):
        memory.free(slot)
    assert memory.take(3 * pages(1)).offset == slots[1].offset


def write(task):
    slot, value = task
    if value == 7:
        slot_array(slot, (3, 1000))[:2] = 99
        os._exit(1)
    slot_array(slot, (3, 1000))[:] = value
    return value


@pytest.mark.parametrize("with_nursery", [False, True])
def test_processes_write_into_slots_and_a_death_frees_its_own(with_nursery):
    memory, slots = ClipMemory(), {}
    memory.hold(2 * pages(3000))

    def tasks():
        for number in range(12):
            if number == 5:  # more than there was: the rest goes into another
                memory.hold(3 * pages(3000))
            while (slot := memory.take(3000)) is None:
                yield None
            slots[number] = slot
            yield str(number), (slot, number)

    def found():
        with DecoderPool(write, num_workers=2) as pool:
            for number, answer in enumerate(pool.map(tasks(), memory=memory)):
                if isinstance(answer, DecodeError):
                    memory.free(slots[number])
                    yield number, None
                else:
                    yield number, memory.array(slots[number], (3, 1000)).copy()

    if with_nursery:
        with nursery():
            answers = dict(found())
    else:
        answers = dict(found())
    assert answers.pop(7) is None
    for number, array in answers.items():
        assert (array == np.full((3, 1000), number)).all()
    assert sorted(answers) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]


def test_nothing_of_it_has_a_name():
    memory = SharedMemory(10**6)
    name = os.readlink(f"/proc/self/fd/{memory._file}")
    assert name.endswith("(deleted)") and "/dev/shm" not in name
