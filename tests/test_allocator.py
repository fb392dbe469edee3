"""Freed memory stays: the next block of the same size costs no page faults."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from stretchysnake import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def work():
    held = [torch.ones(1024, 1024) for _ in range(20)]  # 4 MiB each: 1,024 pages
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_a_block_freed_and_taken_again_costs_no_page_faults():
    def faults(keep):
        command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(True) < 2000 < 20000 < faults(False)
