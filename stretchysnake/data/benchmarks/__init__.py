"""The public benchmarks: one reader per data set over its official files."""

from stretchysnake.data.benchmarks.info import benchmark_info
from stretchysnake.data.benchmarks.load import BENCHMARKS, load_benchmark

__all__ = ["BENCHMARKS", "benchmark_info", "load_benchmark"]
