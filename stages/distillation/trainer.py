"""Training over masked blocks: an exact mean over an update's tokens, a held-out curve, resume bit for bit on a CPU."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stages.core.errors import UserError
from stages.distillation.checkpoints import Checkpoints
from stages.distillation.masking import Batch, Draws
from stages.distillation.schedule import Schedule


@dataclass(frozen=True)
class Counts:
    """What the sums over an update's tokens are divided by: its masked tokens and all its tokens, a process's share."""

    masked: float | Tensor
    tokens: float | Tensor


class Objective(Protocol):
    """What is minimised and what the held-out curve shows."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the values of the training curve, the total first."""

    @property
    def sums(self) -> int:
        """How many sums `held_out` returns."""

    def training(self, model: nn.Module, core: Any, batch: Batch, counts: Counts) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's share of the update's loss, and of the `parts` (len(parts),) without gradient.

        `model` is to be called, perhaps through a wrapper; `core` is the same without it.
        """

    def held_out(self, core: Any, batch: Batch) -> Tensor:
        """Sum over a held-out batch, on its device, as (sums,)."""

    def metrics(self, sums: list[float], masked: int, tokens: int) -> dict[str, float]:
        """Return the curve's values from the sums of all batches."""


class BlockTrainer(Trainer):
    """`transformers.Trainer` with an `Objective`, exact accumulation and its own log of losses.

    Raises UserError when a loss or a weight is not finite.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        draws: Draws,
        held_out: list[Batch],
        schedule: Schedule,
        checkpoints: Checkpoints,
        callbacks: list[TrainerCallback],
    ) -> None:
        arguments = schedule.arguments(checkpoints.folder)
        super().__init__(model=model, args=arguments, train_dataset=draws, data_collator=_already_collated)
        self.core = model
        self.objective: Objective = objective
        self.batches, self.schedule, self.checkpoints = held_out, schedule, checkpoints
        self.running = torch.zeros(len(objective.parts), device=arguments.device)
        self.loss_is_scaled_for_ga = True  # `Counts` are those of the whole update
        self.remove_callback(PrinterCallback)
        self.pace = Pace(self)
        for callback in (self.pace, *callbacks):
            self.add_callback(callback)

    def fit(self) -> None:
        """Train from the latest complete checkpoint, or from the start; without updates, only evaluate."""
        if self.schedule.updates == 0:
            self.evaluate()
            return
        with self.checkpoints.held() if self.is_world_process_zero() else nullcontext():
            self.accelerator.wait_for_everyone()
            latest = self.checkpoints.latest()
            self.args.eval_on_start = latest is None and 0 in self.schedule.evaluation_steps()
            if latest is not None:
                self.running += torch.tensor(self.checkpoints.extra(latest)["running"]).to(self.running)
            self.train(resume_from_checkpoint=str(latest) if latest else None)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return an update's micro-batches and their `Counts`."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        masked = float(sum(len(batch["labels"]) for batch in batches))
        tokens = float(sum(len(batch["order"]) for batch in batches))
        if self.accelerator.num_processes == 1:
            return batches, Counts(masked, tokens)
        # Gradients are averaged over processes, so each divides by the mean of their counts.
        means = self.accelerator.reduce(torch.tensor([masked, tokens], device=device), "mean")
        return batches, Counts(means[0], means[1])

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the micro-batch's share of the update's loss."""
        loss, parts = self.objective.training(model, self.core, inputs, num_items_in_batch)
        self.running += parts
        return loss

    def log_training(self) -> None:
        """Log the training losses, averaged since the last time."""
        steps = self.state.global_step % self.schedule.logging_interval() or self.schedule.logging_interval()
        means = (self.accelerator.reduce(self.running, "mean") / steps).tolist()
        self.running.zero_()
        self._refuse_nan(means)
        points = {f"train/{name}": value for name, value in zip(self.objective.parts, means, strict=True)}
        self.log(points)

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Log the held-out losses; each process takes its share of the batches."""
        self.core.train(False)
        mine = self.batches[self.accelerator.process_index :: self.accelerator.num_processes]
        sums = torch.zeros(self.objective.sums, device=self.args.device)  # a process may have no batch
        for batch in mine:
            sums += self.objective.held_out(self.core, self._prepare_inputs(batch))
        sums = self.accelerator.reduce(sums, "sum")
        masked = sum(len(batch["labels"]) for batch in self.batches)
        values = self.objective.metrics(sums.tolist(), masked, sum(len(batch["order"]) for batch in self.batches))
        self._refuse_nan(list(values.values()))
        self.log({f"held_out/{name}": value for name, value in values.items()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    def refuse_nan_weights(self) -> None:
        """Raise UserError rather than keep a checkpoint that holds a NaN."""
        self._refuse_nan([torch.nn.utils.get_total_norm([p.detach() for p in self.core.parameters()]).item()])

    def _refuse_nan(self, values: list[float]) -> None:
        if not all(map(math.isfinite, values)):
            rate, norm = self.schedule.keys
            raise UserError(
                f"{self.schedule.label}: the loss is not a number by update {self.state.global_step}; lower "
                f"{rate} (now {self.schedule.learning_rate:g}) or {norm} (now {self.schedule.max_grad_norm:g}) "
                "in params.yaml"
            )

    def held_out(self) -> list[dict[str, float]]:
        """Return the held-out curve so far, points before a resume included."""
        points = [
            {
                name.removeprefix("held_out/"): value
                for name, value in sorted(entry.items())
                if name.startswith("held_out/")
            }
            for entry in self.state.log_history
        ]
        return [point for point in points if point]

    def tokens_per_second(self, block_length: int) -> float:
        """Training speed since the start or resume without evaluations and checkpoints; 0 if nothing was left."""
        tokens = self.pace.steps * self.schedule.effective_batch_size * block_length
        return tokens / self.pace.seconds if self.pace.seconds else 0.0


def _already_collated(batch: Any) -> Any:
    """Pass on what `Draws` has made a batch of."""
    return batch


class Pace(TrainerCallback):
    """Decides when to log, evaluate and save, marks checkpoints complete, and keeps the time."""

    def __init__(self, trainer: BlockTrainer) -> None:
        self.trainer = trainer
        self.seconds = 0.0
        self.steps = 0
        self._step_began = self._saved = time.monotonic()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of an update."""
        self._step_began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log, and ask for an evaluation and a checkpoint where they are due."""
        schedule = self.trainer.schedule
        if state.global_step % schedule.logging_interval() == 0 or state.global_step == state.max_steps:
            self.trainer.log_training()
        control.should_evaluate = state.global_step in schedule.evaluation_steps()
        control.should_save = control.should_evaluate or self._minutes_are_over()
        if control.should_save:
            self.trainer.refuse_nan_weights()
        self.seconds += time.monotonic() - self._step_began  # after what waits for a GPU
        self.steps += 1

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Declare the checkpoint complete once every process has written its part."""
        self._saved = time.monotonic()
        running = self.trainer.accelerator.reduce(self.trainer.running, "mean")  # waits for every process
        if state.is_world_process_zero:
            checkpoint = self.trainer.checkpoints.folder / f"checkpoint-{state.global_step}"
            self.trainer.checkpoints.mark_complete(checkpoint, {"running": running.tolist()})

    def _minutes_are_over(self) -> bool:
        """Whether a checkpoint is due by the clock of the first process."""
        over = time.monotonic() - self._saved >= 60 * self.trainer.schedule.save_minutes
        if self.trainer.accelerator.num_processes == 1:
            return over
        flag = torch.tensor(float(over and self.trainer.state.is_world_process_zero), device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(flag, "sum").item() > 0)
