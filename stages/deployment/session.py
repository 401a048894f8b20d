"""How ONNX files are run: on the CPU, one operator after the other, the same way at every call."""

from pathlib import Path

from onnx import ModelProto
from onnxruntime import ExecutionMode, InferenceSession, SessionOptions
from onnxruntime.capi import onnxruntime_pybind11_state as states

from stages.core.errors import UserError

PROVIDERS = ["CPUExecutionProvider"]
ERRORS_ONLY = 3  # of ONNX Runtime's log
UNREADABLE = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NotImplemented,
    states.RuntimeException,
)


def open_session(path: Path, threads: int, arena: bool = True) -> InferenceSession:
    """Load an ONNX file; `arena` keeps freed memory for the next call, which is faster and takes more.

    Raises UserError if the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; `dvc repro onnx-export` makes it")
    try:
        return InferenceSession(str(path), _options(threads, arena), PROVIDERS)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); delete it and run `dvc repro onnx-export`") from error


def open_graph(graph: ModelProto, threads: int) -> InferenceSession:
    """Load a graph of at most 2 GiB that is in memory."""
    return InferenceSession(graph.SerializeToString(), _options(threads), PROVIDERS)


def _options(threads: int, arena: bool = True) -> SessionOptions:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = arena
    options.log_severity_level = ERRORS_ONLY
    return options
