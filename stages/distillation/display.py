"""What a training shows while it runs: a progress bar and a curve."""

from pathlib import Path
from typing import Any

from dvclive.live import Live
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

HELD_OUT = "held_out/"  # prefix of the logged names that belong to the held-out curve


class ProgressBar(TrainerCallback):
    """A bar of tokens with tokens per second, time left and the last losses; on no terminal, a line an evaluation."""

    def __init__(self, label: str, tokens_per_update: int) -> None:
        self.label, self.tokens_per_update = label, tokens_per_update
        self.bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where a resumed training stands."""
        total, done = (steps * self.tokens_per_update for steps in (state.max_steps, state.global_step))
        disable = None if state.is_world_process_zero else True
        self.bar = tqdm(total=total, initial=done, desc=self.label, unit="tok", unit_scale=True, disable=disable)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance by an update's tokens."""
        self.bar.update(self.tokens_per_update)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the training loss on the bar and the held-out losses above it."""
        logs = kwargs["logs"]
        if "train/loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['train/loss']:.3f}", refresh=False)
        points = {name.removeprefix(HELD_OUT): value for name, value in logs.items() if name.startswith(HELD_OUT)}
        if points and state.is_world_process_zero:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in points.items())
            tqdm.write(f"{self.label} {state.global_step}/{state.max_steps}: {losses}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.bar.close()


class Curve(TrainerCallback):
    """DVCLive's files of all logged losses, by update; after a resume, of those before it too.

    Without timestamps, so equal runs give equal files. One curve may span several trainings in a row.
    """

    def __init__(self, folder: Path) -> None:
        self.live = Live(str(folder), dvcyaml=False, report=None, save_dvc_exp=False)
        self.first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the points from before a resume."""
        for entry in state.log_history:
            self._write(int(entry["step"]), entry)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write a point."""
        self._write(state.global_step, kwargs["logs"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let a further training continue where this one ends."""
        self.first += state.global_step

    def _write(self, step: int, values: dict[str, float]) -> None:
        self.live.step = self.first + step
        for name, value in sorted(values.items()):  # a checkpoint's log is sorted, so the first run's has to be too
            if "/" in name:
                self.live.log_metric(name, value)
        self.live.make_summary()  # type: ignore[no-untyped-call]
