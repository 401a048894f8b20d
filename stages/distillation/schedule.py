"""How long and how fast to train, and when to evaluate and save."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from stages.core.errors import UserError
from stages.core.runtime import on_one_device

TRAINING_POINTS = 50  # of the training-loss curve


@dataclass(frozen=True)
class Schedule:
    """Everything that decides an optimisation but the model, the losses and the data."""

    label: str
    keys: tuple[str, str]  # of the learning rate and the gradients' norm in params.yaml
    updates: int
    batch_size: int
    effective_batch_size: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    bf16: bool
    evaluations: int
    save_minutes: float
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    continues: bool = False  # whether another training's last evaluation stands for one before the first update

    def evaluation_steps(self) -> set[int]:
        """Return updates after which to evaluate: evenly spaced from 0 to the last, which is always among them."""
        gaps = max(self.evaluations - 1, 1)
        first = 1 if self.continues or self.evaluations == 1 else 0
        return {round(point * self.updates / gaps) for point in range(first, gaps + 1)}

    def logging_interval(self) -> int:
        """Return how many updates point of the training curve averages."""
        return max(1, self.updates // TRAINING_POINTS)

    def arguments(self, folder: Path) -> TrainingArguments:
        """Say the same in the words of `transformers`; UserError if the processes do not divide the effective batch."""
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=self.updates,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(self.warmup_ratio * self.updates),
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            adam_beta1=self.adam_betas[0],
            adam_beta2=self.adam_betas[1],
            adam_epsilon=self.adam_epsilon,
            seed=self.seed,
            bf16=self.bf16,
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="sequential",  # the draws are shuffled already
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
            logging_nan_inf_filter=False,  # it would wait for the device at every step
            eval_strategy="no",
            save_strategy="no",
            save_total_limit=2,
            ddp_find_unused_parameters=False,  # none is, but the vocabulary's are used outside the wrapped model
            report_to="none",
            disable_tqdm=True,
        )
        on_one_device(arguments)
        blocks = self.batch_size * arguments.world_size
        if self.effective_batch_size % blocks:
            raise UserError(
                f"params.yaml: effective_batch_size {self.effective_batch_size} is no multiple of batch_size "
                f"{self.batch_size} times {arguments.world_size} processes; change one of them, or `processes` of "
                f"the stage in `resources`"
            )
        arguments.gradient_accumulation_steps = self.effective_batch_size // blocks
        return arguments
