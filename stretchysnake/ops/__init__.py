"""Sequence operators: the selective scan and the causal convolution before it."""

from stretchysnake.ops.causal_conv import causal_conv_silu
from stretchysnake.ops.selective_scan import selective_scan, selective_scan_flops

__all__ = ["causal_conv_silu", "selective_scan", "selective_scan_flops"]
