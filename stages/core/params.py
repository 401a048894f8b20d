"""Typed and validated description of `params.yaml`: every key, its type, its range and its meaning."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.errors import UserError
from stages.core.wording import describe

PARAMS_FILE = Path("params.yaml")
SQUAD_SPECIAL_TOKENS = 3  # [CLS] question [SEP] context [SEP]
SEVERAL_PROCESSES = ("distill", "glue-eval", "imdb-eval", "squad-eval")  # stages that train in as many as are asked for
NOT_FINE_TUNED = ("quantized", "combined", "onnx")  # folders in models/ whose weights cannot be
OF_THE_TEACHER = ("bert", "distilbert", "pruned")  # folders in models/ that have its positions
BERT_LAYERS, BERT_POSITIONS = 12, 512  # what `teacher.config` means where it does not say

GlueTask = Literal["CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"]
Stage = Literal[
    "download",
    "teacher",
    "distill",
    "glue-eval",
    "imdb-eval",
    "squad-eval",
    "prune",
    "quantize",
    "onnx-export",
    "onnx-eval",
    "quality-eval",
    "size-bench",
    "speed-bench",
    "android-bench-collect",
    "report",
]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="full commit hash")]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and silent type conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Hardware(Section):
    """What training runs on; both settings change floating-point results."""

    threads: int = Field(ge=1, le=1024, description="CPU threads of a stage")
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto: bf16 autocast where that is faster than fp32")


class Embedded(Section):
    """Size of the generated world."""

    seed: Seed = Field(description="seed of the generator")
    corpus_paragraphs: int = Field(ge=10, description="paragraphs of running text for training")
    train_rows: int = Field(ge=16, description="training rows a task")
    dev_rows: int = Field(ge=16, description="dev rows a task")


class Files(Section):
    """Files of one's own (parquet, jsonl, txt), paths relative to the project."""

    train: list[str] = Field(min_length=1, description="files of the training split")
    dev: list[str] = Field(min_length=1, description="files of the dev split")
    dev_mismatched: list[str] = Field(default=[], description="MNLI's second dev split")


class DataSet(Section):
    """A data set of the hub, its revision and how many rows to keep."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="name on the hub, owner/name")
    revision: Revision
    max_train_rows: int | None = Field(ge=1, description="null keeps all")
    max_dev_rows: int | None = Field(ge=1, description="null keeps all")


class Corpus(DataSet):
    """Running text for MLM pre-training and distillation; further hub repositories may be appended."""

    config: str | None = Field(description="configuration of the repository, null for its only one")
    text_column: str = Field(min_length=1)
    and_also: list["Corpus"] = Field(default=[], description="more text, for example a book corpus")
    files: Files | None = Field(description="text of one's own instead")


class Glue(DataSet):
    """The nine GLUE tasks."""

    files: dict[GlueTask, Files] = Field(description="a task's own files instead of the hub's or the generated ones")

    @model_validator(mode="after")
    def _second_dev_split_of_mnli(self) -> Self:
        for task, files in self.files.items():
            if task == "MNLI" and not files.dev_mismatched:
                raise ValueError("files.MNLI: dev_mismatched is missing")
            if task != "MNLI" and files.dev_mismatched:
                raise ValueError(f"files.{task}: dev_mismatched belongs to MNLI alone")
        return self


class SingleTask(DataSet):
    """IMDb or SQuAD."""

    files: Files | None = Field(description="files of one's own instead")


class Download(Section):
    """Stage `download`."""

    source: Literal["embedded", "hub"] = Field(description="embedded: a generated English world, no network")
    seed: Seed = Field(description="draws the rows that the limits keep")
    embedded: Embedded
    corpus: Corpus
    glue: Glue
    imdb: SingleTask
    squad: SingleTask

    @model_validator(mode="after")
    def _more_text_from_the_hub(self) -> Self:
        if self.source == "embedded" and self.corpus.and_also:
            raise ValueError("corpus.and_also names repositories of the hub, but source is embedded")
        if any(text.and_also for text in self.corpus.and_also):
            raise ValueError("corpus.and_also holds an entry with an and_also of its own; name all in one list")
        return self

    @model_validator(mode="after")
    def _no_second_dev_split(self) -> Self:
        for name, spec in (("corpus", self.corpus), ("imdb", self.imdb), ("squad", self.squad)):
            for part in (spec, *getattr(spec, "and_also", ())):
                if part.files and part.files.dev_mismatched:
                    raise ValueError(f"{name}.files: dev_mismatched belongs to MNLI alone")
        return self


class Teacher(Section):
    """Stage `teacher`."""

    init: str = Field(min_length=1, description="model id, a folder with a checkpoint, or `config` for random weights")
    revision: Revision | None = Field(description="hub revision of `init`; null for a folder or `config`")
    config: dict[str, int | float | str] = Field(description="BertConfig settings for `init: config`")
    vocab_size: int = Field(ge=100, description="size of a WordPiece vocabulary that is trained here")
    pretrain_steps: int = Field(ge=0, description="MLM updates; 0 for a BERT that brings its MLM head")
    head_steps: int = Field(ge=0, description="the first of them that train a new MLM head alone")
    batch_size: int = Field(ge=1, description="blocks an update")
    block_length: int = Field(ge=8, le=512, description="tokens a block")
    head_learning_rate: Positive = Field(description="while the head trains alone")
    learning_rate: Positive
    warmup_ratio: Fraction
    weight_decay: float = Field(ge=0.0)
    max_grad_norm: Positive
    mlm_probability: float = Field(gt=0.0, lt=1.0)
    dropout: Fraction | None = Field(description="while pre-training; null keeps the checkpoint's own")
    threads: int | None = Field(ge=1, le=1024, description="CPU threads; null is hardware.threads")

    @model_validator(mode="after")
    def _head_within(self) -> Self:
        if self.head_steps > self.pretrain_steps:
            raise ValueError(f"head_steps {self.head_steps} exceeds pretrain_steps {self.pretrain_steps}")
        return self


class Distill(Section):
    """Stage `distill`; `epochs` and `batch_size` stand at the top of the file."""

    teacher_layers: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="teacher layers to copy, from 0"
    )
    student_init: Literal["teacher", "random"] = Field(description="random: the paper's ablation")
    block_length: int = Field(ge=8, le=512, description="tokens a block")
    effective_batch_size: int = Field(ge=1, description="blocks an update, a multiple of batch_size")
    alpha_distill: float = Field(ge=0.0, description="weight of the KL loss")
    alpha_mlm: float = Field(ge=0.0, description="weight of the masked-language-modelling loss")
    alpha_cosine: float = Field(ge=0.0, description="weight of the cosine loss")
    temperature: Positive = Field(description="of the KL loss, which is scaled by its square")
    kl_tokens: Literal["all", "masked"] = Field(description="tokens that the KL loss sees")
    mlm_probability: float = Field(gt=0.0, lt=1.0, description="share of tokens to predict")
    mlm_smoothing: float = Field(ge=0.0, description="rarer tokens are drawn more often: count ** -smoothing")
    learning_rate: Positive
    warmup_ratio: Fraction
    adam_beta1: float = Field(ge=0.0, lt=1.0)
    adam_beta2: float = Field(ge=0.0, lt=1.0)
    adam_epsilon: Positive
    weight_decay: float = Field(ge=0.0)
    max_grad_norm: Positive
    dropout: Fraction | None = Field(description="of the student while it learns; null keeps the teacher's own")
    eval_blocks: int = Field(ge=1, description="held-out blocks of the loss curve")
    evaluations: int = Field(ge=1, description="points of the held-out curve")
    save_minutes: float = Field(gt=0.0, description="time between resumable checkpoints")
    threads: int | None = Field(ge=1, le=1024, description="CPU threads, of `prune` too; null is hardware.threads")

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.alpha_distill + self.alpha_mlm + self.alpha_cosine == 0.0:
            raise ValueError("alpha_distill, alpha_mlm and alpha_cosine are all 0, so nothing would be learnt")
        return self

    @model_validator(mode="after")
    def _layers_ascend(self) -> Self:
        if not _ascend(self.teacher_layers):
            raise ValueError(f"teacher_layers {self.teacher_layers} must ascend, each layer once")
        return self


class Recipe(Section):
    """How a task is fine-tuned, the same for every model."""

    epochs: Positive
    batch_size: int = Field(ge=1, description="rows an update")
    eval_batch_size: int = Field(ge=1)
    learning_rate: Positive
    warmup_ratio: Fraction
    weight_decay: float = Field(ge=0.0)
    max_grad_norm: Positive
    max_length: int = Field(ge=8, le=512, description="tokens, special ones included; pairs are cut longest first")
    dropout: Fraction | None = Field(description="of hidden states and attention; null keeps the checkpoint's own")
    freeze_word_embeddings: bool = Field(description="saves a third of a short run's time")
    threads: int | None = Field(ge=1, le=1024, description="CPU threads of a task; null is hardware.threads")


class Overrides(Section):
    """What a task changes in the recipe; `{}` for nothing."""

    epochs: Positive | None = None
    batch_size: int | None = Field(default=None, ge=1)
    eval_batch_size: int | None = Field(default=None, ge=1)
    learning_rate: Positive | None = None
    warmup_ratio: Fraction | None = None
    weight_decay: float | None = Field(default=None, ge=0.0)
    max_grad_norm: Positive | None = None
    max_length: int | None = Field(default=None, ge=8, le=512)
    dropout: Fraction | None = None
    freeze_word_embeddings: bool | None = None

    def applied_to(self, recipe: Recipe) -> Recipe:
        """Return the recipe with this task's settings in place of the global ones."""
        changes = {
            name: value
            for name, value in self.model_dump(include=set(Recipe.model_fields)).items()
            if value is not None or (name == "dropout" and name in self.model_fields_set)  # null is one of its values
        }
        return recipe.model_copy(update=changes)


class GlueEval(Section):
    """Stage `glue-eval`."""

    tasks: dict[GlueTask, Overrides] = Field(description="the tasks to run; may be empty")


class ImdbEval(Section):
    """Stage `imdb-eval`."""

    tasks: dict[Literal["IMDb"], Overrides] = Field(description="{IMDb: {}}, or {} to leave it out")


class SquadOverrides(Overrides):
    """What SQuAD changes in the recipe, and its own settings."""

    doc_stride: int = Field(default=128, ge=1, description="tokens that neighbouring windows share")
    max_answer_length: int = Field(default=30, ge=1, description="tokens")
    n_best: int = Field(default=20, ge=1, description="start and end candidates a window")


class SquadEval(Section):
    """Stage `squad-eval`."""

    tasks: dict[Literal["SQuAD"], SquadOverrides] = Field(description="{SQuAD: {}}, or {} to leave it out")


class Prune(Section):
    """Stage `prune`."""

    method: Literal["magnitude", "structured", "vocabulary"] = Field(
        description="magnitude: zeros; structured: fewer heads and FFN columns; vocabulary: fewer tokens"
    )
    amount: float = Field(
        ge=0.0, lt=1.0, description="share of weights, of heads and FFN columns, or of tokens to remove"
    )
    heads: bool = Field(
        description="structured: attention heads too; without, plain `transformers` loads the checkpoint"
    )
    importance_blocks: int = Field(ge=1, description="structured: blocks of held-out text that rank what to remove")
    vocabulary_text: str | None = Field(description="vocabulary: text whose tokens are kept; null for the corpus")
    recovery_epochs: float = Field(ge=0.0, description="passes over the corpus of distillation after pruning")
    recovery_learning_rate: Positive


class Quantize(Section):
    """Stage `quantize`."""

    granularity: Literal["tensor", "channel"] = Field(description="one scale a weight matrix, or one an output channel")


class OnnxExport(Section):
    """Stages `onnx-export` and `onnx-eval`."""

    check_blocks: int = Field(ge=1, description="held-out blocks, or dev rows, on which ONNX and PyTorch are compared")
    smoothing: float = Field(
        ge=0,
        le=1,
        description="SmoothQuant's alpha: more leaves more of the activations' range to the INT8 weights; 0: off",
    )
    calibration_rows: int = Field(ge=1, description="rows of training text that tell the activations' range")
    tasks: dict[
        Literal["CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "WNLI", "IMDb", "SQuAD"], SquadOverrides
    ] = Field(description="tasks whose fine-tuned models are exported; may be empty")

    @model_validator(mode="after")
    def _answers_only_for_squad(self) -> Self:
        for task, settings in self.tasks.items():
            others = sorted(settings.model_fields_set - set(Overrides.model_fields))
            if task != "SQuAD" and others:
                raise ValueError(f"tasks.{task}.{others[0]} belongs to SQuAD alone")
        return self


class QualityEval(Section):
    """Stage `quality-eval`."""

    blocks: int = Field(ge=1, description="held-out blocks, the same for every variant")


class SpeedBench(Section):
    """Stage `speed-bench`, and the peak memory that `size-bench` takes."""

    threads: int = Field(ge=1, le=1024, description="CPU threads of a measured model")
    rounds: int = Field(ge=1, description="fresh processes a model; the models take turns")
    lengths: list[Annotated[int, Field(ge=4, le=512)]] = Field(
        min_length=1, description="tokens, for latency and memory at batch 1"
    )
    warmup: int = Field(ge=0, description="inferences before the measured ones")
    repeats: int = Field(ge=1, description="measured inferences a length and round")
    throughput_batch: int = Field(ge=1, description="rows a batch of the throughput")
    throughput_length: int = Field(ge=4, le=512, description="tokens a row of the throughput")
    stsb_samples: int = Field(ge=1, description="pairs of the pass over STS-B, BERT beside DistilBERT")
    stsb_warmup: int = Field(ge=0, description="pairs before the clock starts")

    @model_validator(mode="after")
    def _lengths_ascend(self) -> Self:
        if not _ascend(self.lengths):
            raise ValueError(f"lengths {self.lengths} must ascend, each once: tables name the middle one and the ends")
        return self


class StageResources(Section):
    """What a stage takes of a machine where stages run side by side; no part of any result."""

    cpus: float | None = Field(default=None, gt=0, description="null: the threads that it computes with")
    gpus: float = Field(default=0, ge=0, description="none where the machine or cluster has none")
    exclusive: bool = Field(default=False, description="all CPUs of a machine, as measuring wants it")
    processes: int | None = Field(
        default=None,
        ge=1,
        description="of training (distill, evaluations); null: one a GPU, as far as that divides a batch; one on a CPU",
    )
    minutes: Positive | None = Field(default=None, description="limit after which it counts as hanging; null: none")


class Params(Section):
    """The whole of `params.yaml`."""

    profile: str = Field(pattern=r"^[a-z0-9+]+$", description="name shown in tables and checked by `make profile`")
    epochs: float = Field(ge=0.0, description="passes over the corpus in distillation; 0 trains nothing")
    batch_size: int = Field(ge=1, description="blocks a step in distillation")
    seed: Seed = Field(description="of pre-training, distillation and the exported task models")
    seeds: list[Seed] = Field(min_length=1, description="of fine-tuning; tables show the median")
    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], Annotated[str, Field(min_length=1)]] = Field(
        description="row name -> checkpoint folder"
    )
    hardware: Hardware
    download: Download
    teacher: Teacher
    distill: Distill
    finetune: Recipe
    glue: GlueEval
    imdb: ImdbEval
    squad: SquadEval
    prune: Prune
    quantize: Quantize
    onnx_export: OnnxExport
    quality_eval: QualityEval
    speed_bench: SpeedBench
    resources: dict[Stage, StageResources] = Field(
        default={}, description="what a stage takes where stages run side by side; no part of any result"
    )

    def resources_of(self, name: str) -> StageResources:
        """Return what a stage takes; `name` may be a cell's, such as `glue-eval@bert-CoLA-42`."""
        found = {str(stage): resources for stage, resources in self.resources.items()}
        return found.get(name.partition("@")[0], StageResources())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds holds a seed twice: {self.seeds}")
        for name, folder in self.models.items():
            if folder != f"models/{name}":  # a cell's dependency can name the row, not what stands behind it
                raise ValueError(f"models.{name} is {folder}, but a checkpoint lies in models/<name>: models/{name}")
        return self

    @model_validator(mode="after")
    def _processes_share(self) -> Self:
        for stage, resources in self.resources.items():
            if (resources.processes or 1) > 1 and stage not in SEVERAL_PROCESSES:
                allowed = ", ".join(SEVERAL_PROCESSES)
                raise ValueError(f"resources.{stage}.processes: this stage has but one process; allowed for {allowed}")
        processes, effective = self.resources_of("distill").processes or 1, self.distill.effective_batch_size
        if effective % (self.batch_size * processes):
            share = f" times {processes} processes (resources.distill)" if processes > 1 else ""
            raise ValueError(
                f"distill.effective_batch_size {effective} is no multiple of batch_size {self.batch_size}{share}"
            )
        return self

    @model_validator(mode="after")
    def _rows_can_be_fine_tuned(self) -> Self:
        if self.glue.tasks or self.imdb.tasks or self.squad.tasks:
            for name in NOT_FINE_TUNED:
                if name in self.models:
                    raise ValueError(
                        f"models.{name}: INT8 and ONNX models cannot be fine-tuned; take it out, or leave the tasks of "
                        "glue, imdb and squad empty"
                    )
        return self

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        for section, tasks in (("squad", self.squad.tasks), ("onnx_export", self.onnx_export.tasks)):
            for task, settings in tasks.items():
                room = settings.applied_to(self.finetune).max_length - SQUAD_SPECIAL_TOKENS
                if task == "SQuAD" and settings.doc_stride >= room:
                    raise ValueError(
                        f"{section}.tasks.SQuAD.doc_stride {settings.doc_stride} must be below max_length - "
                        f"{SQUAD_SPECIAL_TOKENS} = {room}"
                    )
        return self

    @model_validator(mode="after")
    def _random_teacher_is_large_enough(self) -> Self:
        """Compare with what `teacher.config` says; what another teacher has is known where it is loaded."""
        if self.teacher.init != "config":
            return self
        layers = self.teacher.config.get("num_hidden_layers", BERT_LAYERS)
        if isinstance(layers, int) and self.distill.teacher_layers[-1] >= layers:
            raise ValueError(
                f"distill.teacher_layers: teacher.config has layers 0 to {layers - 1}, so there is no "
                f"{self.distill.teacher_layers[-1]}"
            )
        positions = self.teacher.config.get("max_position_embeddings", BERT_POSITIONS)
        for key, tokens in self._lengths():
            if isinstance(positions, int) and tokens > positions:
                raise ValueError(f"{key} {tokens} exceeds teacher.config.max_position_embeddings {positions}")
        return self

    def _lengths(self) -> Iterator[tuple[str, int]]:
        """Yield the key and value of every length that the teacher's positions bound."""
        yield "teacher.block_length", self.teacher.block_length
        yield "distill.block_length", self.distill.block_length
        grids = (("glue", self.glue.tasks), ("imdb", self.imdb.tasks), ("squad", self.squad.tasks))
        exported = ("onnx_export", self.onnx_export.tasks)
        for section, tasks in (*(grids if self.models.keys() & set(OF_THE_TEACHER) else ()), exported):
            for task, settings in tasks.items():
                yield f"{section}.tasks.{task}: max_length", settings.applied_to(self.finetune).max_length
        yield "speed_bench.lengths:", self.speed_bench.lengths[-1]
        yield "speed_bench.throughput_length", self.speed_bench.throughput_length


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and validate a parameter file (YAML 1.2, so that `1e-05` is a number).

    Raises UserError, in one line, for a missing or malformed file and for the first wrong key.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found; run from the project's root, or `make profile NAME=tiny` writes one"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    return validate(values, path)


def validate(values: Any, path: Path = PARAMS_FILE) -> Params:
    """Check already parsed values; raises UserError that names the first wrong key and what is allowed."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error, Params)}") from error


def _ascend(values: Sequence[int]) -> bool:
    return all(first < second for first, second in pairwise(values))
