"""Fine-tuning and prediction of a checkpoint with a new head, the same for every model."""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, Sampler
from tqdm import tqdm
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from stages.core.errors import UserError
from stages.core.params import Recipe
from stages.core.reading import load_tokenizer, readable
from stages.core.runtime import attention_implementation, on_one_device, set_dropout
from stages.finetuning.features import Features
from stages.modeling.zeros import KeepZeros  # whose package registers students with fewer heads, too

POOL_BATCHES = 8  # batches whose rows are sorted by length together
LOG_STEPS = 10  # updates between two looks at the loss, each of which waits for the device


@dataclass(frozen=True)
class Training:
    """What a training run took: wall seconds, and tokens without padding."""

    seconds: float
    tokens: int


def load(folder: Path, architecture: Any, seed: int, **config: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder in float32 below a new head, whose weights `seed` draws, and its tokenizer.

    `architecture` is one of the `AutoModelFor...` classes. Raises UserError if the checkpoint is missing, damaged or
    lacks encoder weights.
    """
    set_seed(seed)
    with readable(folder):
        model, info = architecture.from_pretrained(
            folder,
            attn_implementation=attention_implementation(),
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            **config,
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise UserError(f"{folder}: INT8 weights cannot be fine-tuned; take this row out of `models` in params.yaml")
    tokenizer = load_tokenizer(folder)
    absent = [name for name in [*info["missing_keys"], *info["mismatched_keys"]] if _of_encoder(model, str(name))]
    if absent:
        raise UserError(f"{folder}: lacks encoder weights ({absent[0]} and {len(absent) - 1} more); run `dvc repro`")
    return model, tokenizer


def _of_encoder(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight belongs to the encoder; BERT's pooler, which an MLM checkpoint has not, counts as the head."""
    prefix = f"{model.base_model_prefix}."
    return name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    features: Sequence[Features],
    recipe: Recipe,
    seed: int,
    bf16: bool,
    name: str,
) -> Training:
    """Train in place with AdamW, linear warm-up and decay; `seed` draws order and dropout, `name` labels the progress.

    Linear weights that are zero, as in a pruned model, stay zero. Raises UserError if the loss stops being a number.
    """
    set_dropout(model, recipe.dropout)
    if recipe.freeze_word_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder, tqdm(desc=name, unit="batch", disable=None) as bar:
        trainer = _Trainer(
            model=model,
            args=_arguments(folder, len(features), recipe, seed, bf16),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=features,
            callbacks=[_Progress(bar, name, recipe), KeepZeros()],
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # `predict` chooses its precision itself
    tokens = sum(len(row["input_ids"]) for row in features)
    return Training(seconds, round(tokens * recipe.epochs))


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    features: Sequence[Features],
    batch_size: int,
    bf16: bool,
) -> list[NDArray[np.float32]]:
    """Compute logits in row order: [labels] of a classifier, [2, positions] (starts, ends) for SQuAD."""
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]), reverse=True)
    collate = DataCollatorWithPadding(tokenizer)
    logits: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(features)
    model.train(False)
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            batch = collate([features[index] for index in chosen])
            output = model(**{key: value.to(model.device) for key, value in batch.items()})
            values = output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], 1)
            for index, row in zip(chosen, values.float().cpu().numpy(), strict=True):
                logits[index] = row
    return logits


class LengthGrouped(Sampler[int]):
    """Rows in a seeded random order whose consecutive batches hold rows of similar length.

    Rows are shuffled, sorted by length within pools of eight batches, cut into batches, and the batches shuffled. The
    order depends on lengths and seed alone, not on what else draws random numbers, so it is the same for all models.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        pool = POOL_BATCHES * self.batch_size
        pools = [sorted(order[i : i + pool], key=self.lengths.__getitem__) for i in range(0, len(order), pool)]
        ranked = [index for rows in pools for index in rows]
        full = len(ranked) // self.batch_size
        for batch in torch.randperm(full, generator=self.generator).tolist():
            yield from ranked[batch * self.batch_size : (batch + 1) * self.batch_size]
        yield from ranked[full * self.batch_size :]


class _Trainer(Trainer):
    """`Trainer` with length-grouped batches of its own, which several processes share row by row."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = self.train_dataset
        return LengthGrouped(
            [len(row["input_ids"]) for row in rows], self.args.per_device_train_batch_size, self.args.seed
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches; of each, where there are several processes, this one's rows."""
        if self.accelerator.num_processes == 1:
            return super().get_train_dataloader()
        rows: Any = self.train_dataset
        batches = BatchSampler(self._get_train_sampler(), self.args.per_device_train_batch_size, drop_last=False)
        share = _Share(batches, self.accelerator.process_index, self.accelerator.num_processes)
        collate: Any = self.data_collator
        # A last batch may be too small for all: a process without a row computes one, which then counts for nothing.
        return DataLoader(
            rows, batch_sampler=share, collate_fn=lambda mine: {**collate(mine or [rows[0]]), "rows": len(mine)}
        )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss, which gradients' mean over the processes makes the mean over the whole batch's rows."""
        if self.accelerator.num_processes == 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        rows = torch.tensor(float(inputs.pop("rows")), device=self.args.device)
        return model(**inputs).loss * rows / self.accelerator.reduce(rows, "mean")


class _Share(Sampler[list[int]]):
    """A process's rows of every batch: each `processes`-th."""

    def __init__(self, batches: BatchSampler, index: int, processes: int) -> None:
        self.batches, self.index, self.processes = batches, index, processes

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[self.index :: self.processes]


class _Progress(TrainerCallback):
    """Shows updates and loss, and ends a training whose loss is not a number."""

    def __init__(self, bar: "tqdm[Any]", name: str, recipe: Recipe) -> None:
        self.bar = bar
        self.name = name
        self.recipe = recipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.reset(total=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        if not math.isfinite(loss):
            raise diverged(self.name, self.recipe)
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)


def diverged(name: str, recipe: Recipe) -> UserError:
    """Build the error of a training whose loss or logits are not numbers."""
    return UserError(
        f"{name}: the loss is not a number; lower finetune.learning_rate (now {recipe.learning_rate}) or "
        "finetune.max_grad_norm in params.yaml, for all tasks or in the task's own entry"
    )


def _arguments(folder: str, rows: int, recipe: Recipe, seed: int, bf16: bool) -> TrainingArguments:
    updates = math.ceil(math.ceil(rows / recipe.batch_size) * recipe.epochs)
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(updates * recipe.warmup_ratio),  # a ratio of 1.0 would be read as one step
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    on_one_device(arguments)
    return arguments
