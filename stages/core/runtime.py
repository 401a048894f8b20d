"""Threads, precision and quiet libraries: what every stage that uses torch sets first."""

import os
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.utils import logging

from stages.core import entry
from stages.core.allocator import keep_freed_memory
from stages.core.params import Hardware

if TYPE_CHECKING:  # which takes seconds to import
    from transformers import TrainingArguments


def configure(hardware: Hardware, threads: int | None = None) -> None:
    """Set threads (`threads`, or the hardware's) and allocator, and keep notices out of the progress display."""
    torch.set_num_threads(threads or hardware.threads)
    if entry.in_group():  # in each process of which accelerate would set another number
        os.environ.setdefault("OMP_NUM_THREADS", str(threads or hardware.threads))
    keep_freed_memory()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator.*")


def use_bf16(hardware: Hardware) -> bool:
    """Whether to train under bf16 autocast: as asked, or with `auto` where the GPU or CPU multiplies bf16 faster.

    Having the instructions is not enough: on an Intel Xeon with AVX512_BF16 but without AMX, torch 2.13 fine-tunes in
    bf16 at little more than half the speed of fp32 (`benchmarks/finetuning.py`), while on an AMD EPYC it gains.
    """
    if hardware.precision != "auto":
        return hardware.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu = torch.cpu.get_capabilities()
    fast = ["amx_bf16", "sve_bf16", "bf16"]
    if str(cpu.get("cpu_name", "")).startswith("AMD"):
        fast.append("avx512_bf16")
    return any(cpu.get(name, False) for name in fast)


def set_dropout(model: nn.Module, dropout: float | None) -> None:
    """Draw dropout with this probability from now on, attention's too; None keeps what the configuration says.

    A CPU draws it in one thread, which takes up to a third of a small model's training step.
    """
    if dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout


def on_one_device(arguments: "TrainingArguments") -> None:
    """Have a process train on one device: with several GPUs in sight, Trainer would spread each batch over them.

    That would multiply the batch and split what is no row. `stages.core.processes` starts a process a GPU instead.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def attention_implementation() -> str:
    """Name the fastest: `sdpa` on a GPU; `eager` on a CPU, where masked SDPA's backward is 2-3x slower (torch 2.13)."""
    return "sdpa" if torch.cuda.is_available() else "eager"
