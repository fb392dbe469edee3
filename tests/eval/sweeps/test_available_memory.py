"""Memory left: of the machine, of control groups of both versions (laid out by hand), of a GPU (told by hand)."""

import pytest
import torch

from stretchysnake.eval.sweeps.available_memory import available_memory

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path):
    """A function that lays out /proc and /sys: available MiB of the machine, lines of cgroup, files in MiB or text."""

    def lay(mebibytes, cgroup="", **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(
            f"MemTotal: 9 kB\nMemAvailable: {1024 * mebibytes} kB\n"
        )
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for name, value in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(value * MIB if isinstance(value, int) else value) + "\n")
        return available_memory(root=tmp_path) / MIB

    return lay


def test_this_machine_tells_its_memory():
    assert 2**20 < available_memory() < 2**50


def test_without_limits_it_is_what_the_machine_has(machine):
    assert machine(500, "0::/\n") == 500


def test_a_container_leaves_less_than_its_machine(machine):
    files = {"memory.max": 300, "memory.current": 120}
    assert machine(500, "0::/\n", **files) == 300 - 120


def test_pages_of_files_do_not_count_as_used(machine):
    stat = f"anon {20 * MIB}\nfile {100 * MIB}\nactive_file {30 * MIB}\ninactive_file {50 * MIB}"
    files = {"memory.max": 300, "memory.current": 120, "memory.stat": stat}
    assert machine(500, "0::/\n", **files) == 300 - (120 - 80)


def test_the_tightest_group_above_the_process_counts(machine):
    files = {
        "a/memory.max": 200, "a/memory.current": 150,
        "a/b/memory.max": "max", "a/b/memory.current": 10,
        "memory.max": 400, "memory.current": 300,
    }  # fmt: skip
    assert machine(500, "0::/a/b\n", **files) == 200 - 150


def test_version_one_where_the_path_is_the_hosts(machine):
    """As in docker: the path names a group of the host, and the container sees its own at the top."""
    files = {
        "memory/memory.limit_in_bytes": 256, "memory/memory.usage_in_bytes": 200,
        "memory/memory.stat": f"total_inactive_file {10 * MIB}\ninactive_file {99 * MIB}",
    }  # fmt: skip
    lines = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"
    assert machine(500, lines, **files) == 256 - 190


def test_a_group_over_its_limit_leaves_nothing(machine):
    assert machine(500, "0::/\n", **{"memory.max": 100, "memory.current": 101}) == 0


def test_a_gpu_leaves_what_it_has_free_and_what_torch_holds_unused(monkeypatch):
    asked = []

    def told(value):
        return lambda device: asked.append(device) or value

    monkeypatch.setattr(torch.cuda, "mem_get_info", told((700, 9000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", told(200))
    monkeypatch.setattr(torch.cuda, "memory_allocated", told(150))
    assert available_memory("cuda:1") == 700 + 200 - 150
    assert set(asked) == {torch.device("cuda", 1)}
