"""Predict the next token."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from domaintune.config import OptimConfig, SchedulerConfig
from domaintune.data.collating import IGNORED, Batch
from domaintune.losses.linear_cross_entropy import linear_cross_entropy
from domaintune.metrics import language_model_metrics
from domaintune.models.loading import output_embedding
from domaintune.tasks.base import FineTuningTask


def model_inputs(batch: Batch) -> dict[str, Any]:
    """What of a batch a model's forward takes."""
    given: Any = batch
    return {name: given[name] for name in ("input_ids", "position_ids", "cu_seqlens") if name in batch}


class CausalLM(FineTuningTask):
    """Wraps `GPT2LMHeadModel` or any other `AutoModelForCausalLM`.

    Logs `train/loss`, and per evaluation `loss`, `perplexity` and `bits_per_byte` under `val/` or `test/`: sums over
    all predicted tokens and all devices, divided once.

    Args:
        model: a causal LM, in train mode.
        optim, scheduler: the groups of the config.
        compile_for: (rows, tokens) of the batches that `torch.compile` is for; None compiles nothing. Others, as the
            last of an epoch, and evaluation run as they are: a compilation takes longer than they do.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optim: OptimConfig,
        scheduler: SchedulerConfig,
        compile_for: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(model, optim, scheduler)
        self.head_is_linear = output_embedding(model) is not None
        self.compiled_shape = compile_for
        body = model.base_model if self.head_is_linear else model
        self.compiled: Any = torch.compile(body.forward, dynamic=False) if compile_for else None
        self._sums = torch.zeros(3)

    def summed_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the token losses in nats, and how many tokens were predicted: two scalars."""
        states, targets = batch["states"], batch["targets"]
        if self.head_is_linear:
            hidden = self._forward(batch).last_hidden_state.flatten(0, 1).index_select(0, states)
            loss = linear_cross_entropy(hidden, self.model.get_output_embeddings().weight, targets, drop=False)
        else:
            logits = self._forward(batch).logits.flatten(0, 1).index_select(0, states)
            loss = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        return loss, loss.new_full((), batch["tokens"])

    def _forward(self, batch: Batch) -> Any:
        """The model's output, without its head where that is linear; compiled where the batch has the right shape."""
        inputs = model_inputs(batch)
        run = self.model.base_model if self.head_is_linear else self.model
        if self.training and self.compiled is not None and inputs["input_ids"].shape == self.compiled_shape:
            run = self.compiled
            if "cu_seqlens" in inputs:  # ever other numbers of windows shall be one compilation
                torch._dynamo.maybe_mark_dynamic(inputs["cu_seqlens"], 0)
        return run(**inputs, use_cache=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, tokens = self.summed_loss(batch)
        return self.step_loss(loss, tokens)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, tokens = self.summed_loss(batch)
        self._sums += torch.stack([value.to(self._sums) for value in (loss, tokens, tokens.new_tensor(batch["bytes"]))])

    def on_validation_epoch_start(self) -> None:
        # fp64 where the device has it: a corpus has millions of terms.
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        self._sums = torch.zeros(3, dtype=exact, device=self.device)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, side: str) -> None:
        sums: Any = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        metrics = language_model_metrics(*sums.tolist())
        self.evaluation = {f"{side}/{name}": value for name, value in metrics.items()}
        self.log_dict(self.evaluation)
