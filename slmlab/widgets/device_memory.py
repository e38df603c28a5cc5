"""Memory of a device where its name fixes it, and of this machine."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")

# Bytes, nominal. Boards and laptops sold in several sizes (Raspberry Pi 5, Apple, Snapdragon) have
# no row: their memory is unknown. Sources: the product's name, and NVIDIA's data sheets of T4
# (16 GB GDDR6), L4 (24 GB GDDR6), H100 SXM and PCIe (80 GB).
DEVICE_MEMORY_BYTES: dict[str, int] = {
    "Jetson Orin Nano 8GB Super": 8 * 10**9,
    "Jetson Orin Nano 8GB (original)": 8 * 10**9,
    "NVIDIA T4": 16 * 10**9,
    "NVIDIA L4": 24 * 10**9,
    "NVIDIA A100 SXM 80GB": 80 * 10**9,
    "NVIDIA A100 PCIe 80GB": 80 * 10**9,
    "NVIDIA H100 SXM": 80 * 10**9,
    "NVIDIA H100 PCIe": 80 * 10**9,
}


def machine_memory_bytes(root: Path = _CGROUP) -> int:
    """Bytes of memory of this machine, or the limit of the container that this process runs in.

    root: cgroup v2 files, or v1's under memory/ (kernel documentation, cgroup-v2.rst).
    """
    total = int(psutil.virtual_memory().total)
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            return min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue  # absent, or "max"
    return total
