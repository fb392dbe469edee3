"""Freed memory stays: a pass like the one before it costs no page faults."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from stretchysnake import VideoMamba, VideoMambaConfig, keep_freed_memory
if {keep}:
    assert keep_freed_memory()
torch.set_num_threads(1)
model = VideoMamba(VideoMambaConfig.named("tiny", depth=3, num_classes=0)).eval()
video = torch.zeros(1, 3, 8, 224, 224)
with torch.no_grad():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        model.features(video)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_third_forward_pass_costs_no_page_faults():
    def faults(keep):
        command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(True) < 500 < 2000 < faults(False)
