"""The scan that exported programs hold, called as it is, against the plain loop.

That torch keeps it as one loop for every length is tested in tests/models/test_exporting.py."""

import pytest
import torch
from scan_problems import make_inputs

from stretchysnake.ops.selective_scan.exported import CHUNK_SIZE, selective_scan_exported
from stretchysnake.ops.selective_scan.inputs import ScanInputs
from stretchysnake.ops.selective_scan.reference import selective_scan_reference


@pytest.mark.parametrize(("length", "reverse"), [(1, False), (2 * CHUNK_SIZE + 5, True)])
def test_equals_the_plain_loop_with_its_final_state(length, reverse):
    inputs = make_inputs(length, 6, 3, dtype=torch.float32)
    options = {"delta_softplus": True, "reverse": reverse}
    with torch.no_grad():
        found = selective_scan_exported(ScanInputs(**inputs, **options))
        wanted = selective_scan_reference(**inputs, **options)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
