"""Tensor operations: selective scan and causal convolution, and how many operations they cost."""

# The native and Triton files register their operations and FLOP formulas with torch when imported; a FLOP
# counter opened before the first scan must find them.
from stretchysnake.ops.add_rms_norm import add_rms_norm
from stretchysnake.ops.bidirectional_scan import native as bidirectional_scan_cpu  # noqa: F401
from stretchysnake.ops.bidirectional_scan.scan import bidirectional_scan
from stretchysnake.ops.causal_conv import native as causal_conv_cpu  # noqa: F401
from stretchysnake.ops.causal_conv import triton as causal_conv_triton  # noqa: F401
from stretchysnake.ops.causal_conv.convolution import causal_conv_silu
from stretchysnake.ops.flops import selective_scan_flops
from stretchysnake.ops.selective_scan import native as selective_scan_cpu  # noqa: F401
from stretchysnake.ops.selective_scan import triton as selective_scan_triton  # noqa: F401
from stretchysnake.ops.selective_scan.scan import selective_scan

__all__ = [
    "add_rms_norm",
    "bidirectional_scan",
    "causal_conv_silu",
    "selective_scan",
    "selective_scan_flops",
]
