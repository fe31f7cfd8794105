"""What every task shares: optimizer wiring and logging, nothing else."""

from typing import Any

import lightning as L
import torch
from torch import nn

from domaintune.config import OptimConfig, SchedulerConfig
from domaintune.optim.parameter_groups import parameter_groups
from domaintune.optim.schedules import warmup_then


class FineTuningTask(L.LightningModule):
    """A model whose loss is a mean over labelled tokens, however its batches are cut up.

    A task's `training_step` hands the *sum* of its token losses to `step_loss`. The gradient is divided by the number
    of tokens of the whole optimizer step (all micro-batches, all devices) when the step is due, so a short batch
    never weighs more per token than a long one.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, scheduler: SchedulerConfig) -> None:
        super().__init__()
        self.model: Any = model
        self.optim, self.scheduler = optim, scheduler
        self.tokens_trained: torch.Tensor | int = 0  # on all devices, since the run began
        self.validated_at_step = -1
        self.evaluation: dict[str, float] = {}  # of the latest evaluation, in fp64; what Lightning logs is fp32
        self._step_sums: list[torch.Tensor] = []  # per micro-batch: (2,) loss and tokens

    def step_loss(self, loss: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What `training_step` returns for a summed loss over `tokens` labelled tokens (both scalars)."""
        self._step_sums.append(torch.stack([loss.detach().float(), tokens.float()]))
        # Lightning divides by accumulate_grad_batches, even in a short last window: undone here.
        return loss * self.trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turns summed gradients into their mean over tokens. Lightning calls it before clipping."""
        sums = self.trainer.strategy.reduce(torch.stack(self._step_sums).sum(0), reduce_op="sum")
        self._step_sums.clear()
        self.tokens_trained = self.tokens_trained + sums[1].long()
        tokens = sums[1].clamp_min(1)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # DDP has averaged over the devices: times world_size is the sum again.
        torch._foreach_mul_(gradients, self.trainer.world_size / tokens)
        self.log("train/loss", sums[0] / tokens)
        self.log("lr", optimizer.param_groups[0]["lr"])

    def on_validation_end(self) -> None:
        self.validated_at_step = self.trainer.global_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["tokens_trained"] = int(self.tokens_trained)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.tokens_trained = checkpoint["tokens_trained"]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm over all parameters. Lightning's own refuses a fused optimizer under bf16-mixed."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        limit = gradient_clip_val or float("inf")
        self.log("train/grad_norm", nn.utils.clip_grad_norm_(parameters, limit))

    def configure_optimizers(self) -> Any:
        """AdamW with decay on matrices only, and a warm-up with a schedule that is stepped with the optimizer."""
        assert self.optim.lr is not None
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.optim.weight_decay),
            lr=self.optim.lr,
            betas=self.optim.betas,
            eps=self.optim.eps,
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
