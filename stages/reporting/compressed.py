"""What the stages after distillation measured of the student's variants, read from their files, and how it was made."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core.artifacts import read_json
from stages.core.params import Params
from stages.measurement.machine import LIBRARIES
from stages.measurement.variants import VARIANTS
from stages.reporting.exported import Exported, load_exported
from stages.reporting.published import PARAMETERS
from stages.reporting.statistics import Interval

Rows = Mapping[str, Mapping[str, Any]]
TITLES = {
    "baseline": "PyTorch",
    "quantized": "PyTorch, INT8",
    "pruned": "PyTorch, pruned",
    "combined": "PyTorch, pruned, INT8",
    "onnx_baseline": "ONNX",
    "onnx_baseline_int8": "ONNX, INT8",
    "onnx_pruned": "ONNX, pruned",
    "onnx_pruned_int8": "ONNX, pruned, INT8",
}
CORPUS, STSB = "corpus", "STS-B"
DATA_SETS = {CORPUS: Path(CORPUS), STSB: Path("glue", STSB)}  # what variants are measured on, in data/
# Of two models that are as fast, all of one's 4 rounds beat all of the other's in 3 % of cases; of 3 rounds, in 10 %.
ENOUGH_ROUNDS = 4


@dataclass(frozen=True)
class Making:
    """How the measured student was made, as far as it decides what its figures compare with.

    `source` is where its text is from, `kl_tokens` what its distillation loss sees, `random` that nothing was trained,
    `training` the precision and the threads.
    """

    source: str
    kl_tokens: str
    random: bool
    training: str

    @classmethod
    def of(cls, params: Params) -> "Making":
        """Read it from the parameters."""
        random = params.teacher.init == "config" and not params.teacher.pretrain_steps and not params.epochs
        threads = params.hardware.threads
        others = {
            "the teacher": params.teacher.threads,
            "distillation": params.distill.threads,
            "an evaluation": params.finetune.threads,
        }
        own = "".join(f", of {what} {count}" for what, count in others.items() if count not in (None, threads))
        training = f"precision {params.hardware.precision}; threads: {threads}{own}"
        return cls(params.download.source, params.distill.kl_tokens, random, training)


@dataclass(frozen=True)
class Measurements:
    """What the stages after distillation wrote: a mapping from row to figures for each table.

    `notes` say, by data set, what it lacks of the official one.
    """

    compression: Rows
    quality: Rows
    onnx: Mapping[Exported, Mapping[str, Any]]
    speed: Rows
    summary: Mapping[str, Any]
    rounds: int
    prune: Mapping[str, Any]
    quantize: Rows
    notes: Mapping[str, str]
    making: Making

    @property
    def middle(self) -> str:
        """The length, in tokens, that stands for all where a single latency is shown."""
        lengths = [str(length) for length in self.compression["baseline"]["latency_ms"]]
        return lengths[len(lengths) // 2]

    @property
    def published_size(self) -> bool:
        """Whether the student is of the size that figures were published for."""
        return bool(self.compression["baseline"]["parameters"] == PARAMETERS)

    @property
    def comparable_losses(self) -> tuple[str, ...]:
        """The losses of which published ones are the same thing: of trained weights of that size on real text."""
        if not self.published_size or self.making.random or self.making.source != "hub":
            return ()
        return ("mlm_loss", "cosine_loss", *(("distill_loss",) if self.making.kl_tokens == "all" else ()))

    @property
    def masked_tokens(self) -> int:
        """The number of masked tokens that losses and accuracies are over."""
        return int(self.quality["baseline"]["masked_tokens"])

    def latency(self, name: str) -> float:
        """Return a variant's median latency at the middle length, in milliseconds."""
        return float(self.compression[name]["latency_ms"][self.middle]["p50"])

    def span(self, name: str, figure: Literal["latency", "throughput"] = "latency") -> Interval:
        """Return the lowest and highest round's median latency at the middle length, or throughput."""
        key = f"latency_ms.{self.middle}.p50" if figure == "latency" else figure
        found = self.summary["compression"][name][key]
        return Interval(found["low"], found["high"])

    def same_speed(self, name: str, other: str, figure: Literal["latency", "throughput"] = "latency") -> bool:
        """Say whether two variants' rounds overlap, so that they do not show which is faster."""
        one, two = self.span(name, figure), self.span(other, figure)
        return one.low <= two.high and two.low <= one.high

    def ratio(self, name: str, other: str) -> float:
        """Return how large a variant's file is beside another's."""
        return float(self.compression[name]["size_mb"] / self.compression[other]["size_mb"])

    def loss_change(self, name: str) -> tuple[float, Interval]:
        """Return how much higher a variant's MLM loss is than the student's, and the 95 % interval; 0 for itself."""
        row = self.quality[name]
        if "mlm_loss_difference" not in row:
            return 0.0, Interval(0.0, 0.0)
        low, high = (row[f"mlm_loss_difference_{end}"] for end in ("low", "high"))
        return row["mlm_loss_difference"], Interval(low, high)


def load_measurements(
    metrics: Path, data: Path, models: Sequence[str], tasks: Collection[str], making: Making
) -> Measurements:
    """Read the JSON files of the variants, `models` and exported `tasks`; UserError if one is missing or damaged.

    `data` holds the data sets, in eval/onnx the task models' figures, and in eval/speed the rounds of speed-bench and
    their summary.
    """
    names, speed = [variant.name for variant in VARIANTS], data / "eval/speed"
    return Measurements(
        compression={name: read_json(metrics / "compression" / f"{name}.json") for name in names},
        quality={name: read_json(metrics / "quality" / f"{name}.json") for name in names},
        onnx=load_exported(metrics / "onnx", data / "eval/onnx", tasks),
        speed={name: read_json(metrics / "speed" / f"{name}.json") for name in models},
        summary=read_json(speed / "summary.json"),
        rounds=len(read_json(speed / "rounds.json")["compression"]["baseline"]),
        prune=read_json(metrics / "prune.json"),
        quantize=read_json(metrics / "quantize.json"),
        notes={name: read_json(data / folder / "dataset.json")["note"] for name, folder in DATA_SETS.items()},
        making=making,
    )


def machine_text(machine: Mapping[str, Any]) -> str:
    """Say what the speeds were taken on, and with how many threads."""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return (
        f"{machine['processor']}, {threads} of {machine['cores']} cores ({machine['instruction_sets']}), "
        f"{machine['memory_gb']:g} GB, {machine['system']}"
    )


def libraries_text(machine: Mapping[str, Any]) -> str:
    """List the versions that the speeds depend on."""
    return ", ".join(f"{name} {machine[name]}" for name in ("python", *LIBRARIES))
