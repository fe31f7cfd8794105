"""Predict the next token."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig
from domaintune.data.batching import IGNORED, Batch
from domaintune.data.chatting import Chats
from domaintune.data.datamodule import EncodedDataModule
from domaintune.data.inputs import Input
from domaintune.data.labelling import Labels
from domaintune.data.language_datamodule import LanguageDataModule
from domaintune.data.left_out import REFUSED
from domaintune.data.splitting import Splits
from domaintune.kernels.attention import check_causal
from domaintune.kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_of_each
from domaintune.models.generation import encode_prompt, encode_question, fit_prompt
from domaintune.models.heads import Head
from domaintune.models.loading import output_embedding
from domaintune.tasks.base import FineTuningTask
from domaintune.tasks.metrics import language_model_metrics
from domaintune.tasks.predicting import Predictor, Row

PROBED_TOKENS = 16  # enough to see whether a model looks ahead


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

    Attributes:
        of_windows: (W, 2) of the latest evaluation the sum of each window's token losses, and of how many tokens; over
            all devices, none where a window wasn't measured.
    """

    head = Head(AutoModelForCausalLM, "a causal LM", special_token="eos_token", peft_type="CAUSAL_LM", goes_on=True)
    continues = True

    @classmethod
    def make_data(cls, config: Config, splits: Splits, labels: Labels | None, tokenizer: Any) -> EncodedDataModule:
        return LanguageDataModule(config.data, splits, tokenizer, config.seed, config.paths.cache)

    @classmethod
    def check_model(cls, model: PreTrainedModel, data: EncodedDataModule) -> None:
        measured = next(
            each for each in (data.datasets["val"], data.datasets["test"], data.datasets["train"]) if len(each)
        )
        check_causal(model, measured.window(0)["input_ids"][None, :PROBED_TOKENS])

    @classmethod
    def make(cls, config: Config, model: PreTrainedModel, trained_on: Any) -> "CausalLM":
        compile_for = (config.data.batch_size, config.data.block_size) if config.model.compile else None
        return cls(model, config.optim, config.scheduler, compile_for)

    @classmethod
    def predict(cls, predictor: Predictor, rows: list[Input]) -> list[Row]:
        """What follows each text, or answers it."""
        prompts, refused = [], {}
        for place, row in enumerate(rows):
            try:
                prompts.append(fit_prompt(_asked(predictor, row), predictor.max_new_tokens, predictor.model))
            except ValueError as error:  # of the chat template
                refused[place] = {"left_out": f"{REFUSED}: {error}"}
        written = iter(predictor.write(prompts))
        return [refused[place] if place in refused else next(written) for place in range(len(rows))]

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
        self.of_windows = np.zeros((0, 2))
        self._side, self._bytes = "val", 0  # what is measured, and the bytes of the text that was predicted

    def forward(self, batch: Batch, reduction: str = "sum") -> tuple[torch.Tensor, torch.Tensor]:
        """The token losses in nats, and how many tokens were predicted (a scalar).

        Args:
            reduction: `sum`, a scalar; or `none`, the loss of each of the batch's `targets`, without a gradient.
        """
        states, targets = batch["states"], batch["targets"]
        if self.head_is_linear:
            hidden = self._run_model(batch).last_hidden_state.flatten(0, 1).index_select(0, states)
            weight = self.model.get_output_embeddings().weight
            if reduction == "none":
                loss = linear_cross_entropy_of_each(hidden, weight, targets)
            else:
                loss = linear_cross_entropy(hidden, weight, targets, drop=False)
        else:
            logits = self._run_model(batch).logits.flatten(0, 1).index_select(0, states)
            loss = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction=reduction)
        return loss, loss.new_full((), batch["tokens"])

    def _run_model(self, batch: Batch) -> Any:
        """The model's output, without its head where that is linear; compiled where the batch has the right shape."""
        inputs = model_inputs(batch)
        run = self.model.base_model if self.head_is_linear else self.model
        if self.training and self.compiled is not None and inputs["input_ids"].shape == self.compiled_shape:
            run = self.compiled
            if "cu_seqlens" in inputs:  # ever other numbers of windows shall be one compilation
                torch._dynamo.maybe_mark_dynamic(inputs["cu_seqlens"], 0)
        return run(**inputs, use_cache=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, tokens = self(batch)
        return self.step_loss(loss, tokens)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses, _ = self(batch, reduction="none")
        data: Any = self.trainer.datamodule
        windows = data.windows_in(self._side, batch_idx)
        labels = data.datasets[self._side].labels[windows]
        # Targets stand in the order of the windows.
        owners = torch.from_numpy(np.repeat(windows, labels)).to(losses.device)
        self._sums[:, 0].index_add_(0, owners, losses[: batch["tokens"]].to(self._sums))
        self._sums[torch.from_numpy(windows), 1] = torch.from_numpy(labels).to(self._sums)
        self._bytes += batch["bytes"]

    def begin_evaluation(self, side: str) -> None:
        data: Any = self.trainer.datamodule
        self._side, self._bytes = side, 0
        self._sums = self.zeros(len(data.datasets[side]), 2)

    def end_evaluation(self, side: str) -> dict[str, float]:
        self.of_windows = self._sums.cpu().double().numpy()
        text_bytes: Any = self.trainer.strategy.reduce(self._sums.new_tensor(self._bytes), reduce_op="sum")
        loss, tokens = self.of_windows.sum(0).tolist()
        return language_model_metrics(loss, tokens, float(text_bytes))


def _asked(predictor: Predictor, row: Input) -> list[int]:
    """The prompt that a row is."""
    tokenizer, encoder = predictor.tokenizer, predictor.encoder
    if row.turns:
        return encoder.ids(*Chats(tokenizer, encoder).asked(list(row.turns)))
    if predictor.chat:
        return encode_question(tokenizer, encoder, str(row.text))
    return encode_prompt(tokenizer, encoder, str(row.text), predictor.model)
