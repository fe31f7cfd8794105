"""What every task shares: optimizer wiring, sums of an evaluation, and logging."""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Self, cast

import lightning as L
import torch
from hydra.utils import get_class
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from transformers import PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig, TaskConfig
from domaintune.data.datamodule import EncodedDataModule, pad_token_id
from domaintune.data.example_datamodule import ExampleDataModule
from domaintune.data.examples import ExampleDataset
from domaintune.data.inputs import Input
from domaintune.data.labelling import Labels
from domaintune.data.splitting import Splits
from domaintune.errors import RunError, UsageError
from domaintune.kernels.gradient_norm import sum_of_squares
from domaintune.models.heads import Head
from domaintune.models.parts import head_parameters
from domaintune.models.sharding import is_sharded, local, shard
from domaintune.optim.parameter_groups import learning_rates, parameter_groups
from domaintune.optim.schedules import warmup_then
from domaintune.tasks.predicting import Predictor, Row, beside


def task_class(task: TaskConfig) -> "type[FineTuningTask]":
    """The class that a task's leaf names. Raises UsageError where there is none of that name."""
    try:
        return cast("type[FineTuningTask]", get_class(task._target_))
    except (ImportError, ValueError) as error:
        raise UsageError(f"task._target_={task._target_}: {error}") from error


class FineTuningTask(L.LightningModule):
    """A model whose loss is a mean over labels (tokens, words, texts), however its batches are cut up.

    A task's `training_step` hands the *sum* of its labels' losses to `step_loss`. The gradient is divided by the number
    of labels of the whole optimizer step (all micro-batches, all devices) when the step is due, so a short batch
    never weighs more per label than a long one.

    Attributes:
        head: what transformers puts on its models.
        continues: whether its model goes on with a text, so that samples can be written.
    """

    head: ClassVar[Head]
    continues = False

    @classmethod
    def make_data(cls, config: Config, splits: Splits, labels: Labels | None, tokenizer: Any) -> EncodedDataModule:
        """The encoded documents that it learns from."""
        raise NotImplementedError

    @classmethod
    def label_settings(cls, labels: Labels | None) -> dict[str, Any]:
        """What of a model's config the labels decide: see `load_model`."""
        return {}

    @classmethod
    def prepare_model(cls, model: PreTrainedModel, tokenizer: Any, config: Config) -> None:
        """Sets what of a loaded model the task or its data decide."""

    @classmethod
    def check_model(cls, model: PreTrainedModel, data: EncodedDataModule) -> None:
        """Raises UsageError where a model can't learn the task."""

    @classmethod
    def make(cls, config: Config, model: PreTrainedModel, trained_on: tuple[dict[str, int], int] | None) -> Self:
        """The task around a loaded model.

        Args:
            trained_on: see `Prepared`; of tasks that learn labels.
        """
        return cls(model, config.optim, config.scheduler)

    @classmethod
    def predict(cls, predictor: Predictor, rows: list[Input]) -> Iterable[Row]:
        """What a trained model says of each row: the fields that the task's leaf declares."""
        raise NotImplementedError

    @classmethod
    def answer(cls, predictor: Predictor, inputs: list[Input]) -> list[Row]:
        """A row for each input, in their order; of one that can't be used its place, and why."""
        asked = [row for row in inputs if row.text is not None]
        with torch.no_grad():
            found = iter(list(cls.predict(predictor, asked)) if asked else [])
        fields, answers = predictor.config.task.predicts, []
        for row in inputs:
            odd = {"left_out": row.left_out} if row.left_out else {}
            new = next(found) if row.text is not None else odd
            answers.append({"row": row.place, **beside(row.columns, fields, new), **new})
        return answers

    def __init__(self, model: nn.Module, optim: OptimConfig, scheduler: SchedulerConfig) -> None:
        super().__init__()
        self.model: Any = model
        self.optim, self.scheduler = optim, scheduler
        self.tokens_trained: torch.Tensor | int = 0  # on all devices, since the run began
        self.validated_at_step = -1
        self.evaluation: dict[str, float] = {}  # of the latest evaluation, in fp64; what Lightning logs is fp32
        self.latest_step: dict[
            str, Any
        ] = {}  # what the latest optimizer step was made with; see callbacks/nonfinite.py
        self._unlogged: tuple[int, dict[str, Any]] = (-1, {})  # the latest step, and its figures that nobody has yet
        self.logged_out_of_turn: int | None = None  # the step that was logged since it was the last one
        self._gradient_scale = torch.ones(())
        self._step_sums: list[torch.Tensor] = []  # per micro-batch: (3,) loss, its divisor and tokens
        self._sums = torch.zeros(0)  # of an evaluation
        self.frozen = {
            name for name, weight in self.named_parameters(remove_duplicate=False) if not weight.requires_grad
        }
        self.strict_loading = not self.frozen

    def configure_model(self) -> None:
        """Called by Lightning in each process, before anything runs."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            shard(self)

    def step_loss(self, loss: torch.Tensor, labels: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        """What `training_step` returns.

        Args:
            loss: summed, a scalar.
            labels: what the sum is divided by, a scalar: the number of labels, or the sum of their weights.
            tokens: how many count as trained on; by default as many as there are labels.
        """
        counted = labels if tokens is None else labels.new_full((), tokens)
        self._step_sums.append(torch.stack([loss.detach().float(), labels.float(), counted.float()]))
        # Lightning divides by accumulate_grad_batches, even in a short last window: undone here.
        return loss * self.trainer.accumulate_grad_batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Frees the gradients of the last step: Lightning would hold them through the forward pass."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.optimizers().zero_grad()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Finds what turns summed gradients into their mean over tokens. Lightning calls it before clipping."""
        own = torch.stack(self._step_sums)
        sums = _over_devices(own.sum(0))
        self._step_sums.clear()
        self.tokens_trained = self.tokens_trained + sums[2].long()
        labels = torch.where(sums[1] > 0, sums[1], 1)
        # DDP has averaged over the devices: times world_size is the sum again.
        self._gradient_scale = self.trainer.world_size / labels
        self.latest_step = {
            "loss": sums[0] / labels,
            "micro_losses": own[:, 0],
            "lr": optimizer.param_groups[0]["lr"],
        }

    def on_train_start(self) -> None:
        """Of a run that goes on and is to train longer, the next step has its place in the longer schedule."""
        schedule: Any = self.lr_schedulers()
        for group, lr, share in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = lr * share(schedule.last_epoch)

    def begin_evaluation(self, side: str) -> None:
        """Called before the first batch of a side; sets `_sums` to what is summed up."""
        raise NotImplementedError

    def end_evaluation(self, side: str) -> dict[str, float]:
        """The metrics of a side, without its name in front, from `_sums` over all devices."""
        raise NotImplementedError

    def zeros(self, *shape: int) -> torch.Tensor:
        """For exact sums: fp64 where the device has it, since a corpus has millions of terms."""
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.zeros(shape, dtype=exact, device=self.device)

    def on_validation_epoch_start(self) -> None:
        self.begin_evaluation("val")

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        self.begin_evaluation("test")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, side: str) -> None:
        self._sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        # Of Python's own numbers, since checkpoints keep it.
        self.evaluation = {f"{side}/{name}": float(value) for name, value in self.end_evaluation(side).items()}
        # Lightning would hand a validation to the loggers one step too early, and its epoch with it.
        self.log_dict(self.evaluation, logger=False)
        if side == "val":
            self._hand_to_loggers(self.evaluation, self.trainer.global_step)

    def on_validation_end(self) -> None:
        self.validated_at_step = self.trainer.global_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What is frozen is left out: it is the weights that the run started from, which it knows by their hash."""
        checkpoint["tokens_trained"] = int(self.tokens_trained)
        checkpoint["logged_out_of_turn"] = self.logged_out_of_turn
        checkpoint["evaluation"] = self.evaluation  # of best.ckpt, what it is the best by
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name not in self.frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        loaded = checkpoint.get("state_dict")  # split weights are loaded already
        if loaded is not None and (missing := {*self.state_dict()} - {*loaded} - self.frozen):
            raise RunError(f"the checkpoint lacks {len(missing)} trained weights, {min(missing)} among them")
        self.tokens_trained = checkpoint["tokens_trained"]
        self.logged_out_of_turn = checkpoint.get("logged_out_of_turn")
        self.evaluation = checkpoint.get("evaluation", {})

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Takes the mean and clips by its norm over all parameters, in one pass over the gradients.

        Lightning calls it at every optimizer step; its own refuses a fused optimizer under bf16-mixed.
        """
        gradients = _gradients(optimizer)
        squares: Any = sum_of_squares(gradients)
        if is_sharded(self):  # of split gradients it is that of this device's parts
            squares = _over_devices(squares)
        norm, scale = squares.sqrt().float() * self._gradient_scale, self._gradient_scale
        if gradient_clip_val:
            scale = scale * (gradient_clip_val / (norm + 1e-6)).clamp(max=1)
        torch._foreach_mul_(gradients, scale)
        loss, lr = self.latest_step["loss"], self.latest_step["lr"]
        # Under fp16 the norm is infinite now and then: the loss scale is being found, and the step is left out anyway.
        finite = loss.isfinite() if self.trainer.precision == "16-mixed" else loss.isfinite() & norm.isfinite()
        self.latest_step |= {"grad_norm": norm, "finite": finite}
        _leave_out_unless(finite, optimizer)
        self.log_step({"train/loss": loss, "train/grad_norm": norm, "lr": lr}, self.trainer.global_step + 1)

    def log_step(self, figures: dict[str, Any], step: int) -> None:
        """Logs figures of an optimizer step where its turn has come; else keeps them for `log_last_step`.

        Args:
            step: counted from 1: the number of steps that have been made after it.
        """
        in_turn = step % self.trainer.log_every_n_steps == 0
        trainer: Any = self.trainer
        # What early stopping watches is there at each validation, and is that of the latest step.
        if in_turn or any(getattr(callback, "monitor", None) in figures for callback in trainer.callbacks):
            self.log_dict(figures, logger=False)
        if in_turn:  # not oftener: a figure waits for the device
            self._hand_to_loggers(figures, step)
        else:
            kept = self._unlogged[1] if self._unlogged[0] == step else {}
            self._unlogged = step, kept | figures

    def log_last_step(self) -> None:
        """Logs the latest step also where its turn has not come: training ends with it, or is interrupted."""
        step, figures = self._unlogged
        if figures and step == self.trainer.global_step:
            self._hand_to_loggers(figures, step)
            self.logged_out_of_turn = step
        self._unlogged = (-1, {})

    def on_train_end(self) -> None:
        self.log_last_step()

    def _hand_to_loggers(self, figures: dict[str, Any], step: int) -> None:
        """The loggers have the figures before this returns.

        Lightning would hand them on only after its callbacks have saved their checkpoints: of a run that is killed in
        between, that point of the curve would be missing.
        """
        for logger in self.trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in figures.items()}, step)

    def configure_optimizers(self) -> Any:
        """AdamW with decay on matrices only, and a warm-up with a schedule that is stepped with the optimizer."""
        optim = self.optim
        assert optim.lr is not None
        rates = learning_rates(self.model, optim.lr, optim.layer_decay, optim.head_lr, head_parameters(self.model))
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, optim.weight_decay, rates),
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            # Under fp16 a fused AdamW takes the loss scale off by itself, after our clipping: too late.
            fused=self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed",
        )
        total = self.trainer.estimated_stepping_batches
        shape = self.scheduler
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_then(shape.name, step, total, shape.warmup_steps, shape.min_lr_rate),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ExampleTask(FineTuningTask):
    """A task that learns from examples, in batches of parts; `forward` returns a part's summed loss and its divisor."""

    @classmethod
    def make_data(cls, config: Config, splits: Splits, labels: Labels | None, tokenizer: Any) -> EncodedDataModule:
        make_examples = partial(cls.make_examples, config=config, labels=labels, tokenizer=tokenizer)
        data = config.data
        return ExampleDataModule(data, splits, tokenizer, config.seed, config.paths.cache, make_examples, labels)

    @classmethod
    def make_examples(
        cls, *given: Any, config: Config, labels: Labels | None, tokenizer: Any, side: str
    ) -> ExampleDataset:
        """The examples of a side. `given`: what an ExampleDataset takes."""
        raise NotImplementedError

    @classmethod
    def prepare_model(cls, model: PreTrainedModel, tokenizer: Any, config: Config) -> None:
        if model.config.pad_token_id is None:
            model.config.pad_token_id = pad_token_id(tokenizer)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """The parts go through the model one by one: rows of like lengths, so that little of them is padding."""
        losses, labels, *_ = zip(*(self(part) for part in batch["parts"]), strict=True)
        tokens = sum(part["tokens"] for part in batch["parts"])
        return self.step_loss(torch.stack(losses).sum(), torch.stack(labels).sum(), tokens)


def names_in_config(labels: Labels) -> dict[str, Any]:
    """The names of classes as a model's config has them."""
    names = dict(enumerate(labels.names))
    return {"num_labels": len(names), "id2label": names, "label2id": {name: number for number, name in names.items()}}


def _over_devices(values: torch.Tensor) -> torch.Tensor:
    """Their sum, in place. Lightning's own `reduce` has the program wait for the devices first."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)
    return values


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """To change in place; where weights are split over devices, this device's parts."""
    return local([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])


def _leave_out_unless(finite: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The next step changes neither weights nor moments where its numbers are not finite."""
    wrapped: Any = getattr(optimizer, "_optimizer", optimizer)  # by Lightning
    if wrapped.defaults["fused"]:
        # What GradScaler tells a fused optimizer: decided on the device, nothing waits for it.
        wrapped.found_inf = (~finite).float()
    elif not finite:
        optimizer.zero_grad()
