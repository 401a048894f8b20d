"""What figures were taken on: processor, instruction sets, memory and library versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

# Instruction sets that matrix products use, by what /proc/cpuinfo calls them (x86, then ARM).
INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
LIBRARIES = ("torch", "transformers", "onnxruntime", "onnx", "numpy")


def describe(threads: int) -> dict[str, Any]:
    """Describe this machine and the number of threads that the measured models used."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in flags),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo; nothing where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
