"""Turn a text into another."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import distributed
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig
from domaintune.data.batching import IGNORED
from domaintune.data.examples import ExampleBatch, Pairs
from domaintune.data.inputs import Input
from domaintune.data.labelling import Labels
from domaintune.errors import UsageError
from domaintune.kernels.linear_cross_entropy import linear_cross_entropy
from domaintune.models.generation import Sampling, continue_all, generation_config, run_context
from domaintune.models.heads import Head
from domaintune.models.loading import decoder_output, head_is_linear
from domaintune.models.sharding import is_sharded
from domaintune.tasks.base import ExampleTask
from domaintune.tasks.metrics import overlap_metrics, perplexity
from domaintune.tasks.predicting import Predictor, Row


class Seq2Seq(ExampleTask):
    """Wraps `T5ForConditionalGeneration` or any other `AutoModelForSeq2SeqLM`.

    The loss is the mean over target tokens, the end included. Logs `loss` and `perplexity` over the whole side, and
    `rouge1`, `rouge2`, `rougeL` and `chrf` over a sample of it whose targets the model writes itself, the likeliest
    token each time.

    Args:
        generate_examples: how many, spread over the side.
        max_new_tokens: of what is written.
    """

    head = Head(AutoModelForSeq2SeqLM, "a sequence-to-sequence model", peft_type="SEQ_2_SEQ_LM")
    continues = True

    @classmethod
    def make_examples(cls, *given: Any, config: Config, labels: Labels | None, tokenizer: Any, side: str) -> Pairs:
        return Pairs(*given, target_size=config.data.target_size)

    @classmethod
    def prepare_model(cls, model: PreTrainedModel, tokenizer: Any, config: Config) -> None:
        super().prepare_model(model, tokenizer, config)
        likeliest = Sampling(config.data.target_size, temperature=0)  # what validation and predict write
        model.generation_config = generation_config(tokenizer, likeliest, model)

    @classmethod
    def make(cls, config: Config, model: PreTrainedModel, trained_on: Any) -> "Seq2Seq":
        return cls(model, config.optim, config.scheduler, config.task.generate_examples, config.data.target_size)

    @classmethod
    def predict(cls, predictor: Predictor, rows: list[Input]) -> list[Row]:
        """What it turns each text into."""
        sources = predictor.encode([predictor.config.data.prefix + str(row.text) for row in rows])
        return predictor.write([torch.from_numpy(ids) for ids in sources])

    def __init__(
        self,
        model: PreTrainedModel,
        optim: OptimConfig,
        scheduler: SchedulerConfig,
        generate_examples: int,
        max_new_tokens: int,
    ) -> None:
        super().__init__(model, optim, scheduler)
        self.generate_examples, self.max_new_tokens = generate_examples, max_new_tokens
        self.head_is_linear = head_is_linear(model)
        if getattr(model.config, "decoder_start_token_id", None) is None:
            raise UsageError(f"{model.config.model_type}: config.json names no decoder_start_token_id")

    def forward(self, batch: ExampleBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the token losses in nats, and how many tokens were predicted: two scalars."""
        labels = batch["labels"]
        inputs = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            # The targets moved to the right by one; what stands where they are IGNORED no real token sees.
            "decoder_input_ids": self._shifted(labels),
        }
        if self.head_is_linear:
            hidden = decoder_output(self.model, inputs).flatten(0, 1).index_select(0, batch["places"])
            head = self.model.get_output_embeddings()
            loss = linear_cross_entropy(hidden, head.weight, batch["targets"], drop=False, bias=head.bias)
        else:
            logits = self.model(**inputs, use_cache=False).logits.flatten(0, 1)
            loss = F.cross_entropy(logits.float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss, loss.new_full((), batch["labelled"])

    def _shifted(self, labels: torch.Tensor) -> torch.Tensor:
        """(B, U) what the decoder is given: the sign that begins a target, and the target without its last token."""
        shape: Any = self.model.config
        start = labels.new_full((len(labels), 1), shape.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, shape.pad_token_id)], dim=1)

    def begin_evaluation(self, side: str) -> None:
        self._sums = self.zeros(2)

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        loss, labels = self(batch)
        self._sums += torch.stack([value.to(self._sums) for value in (loss, labels)])

    def end_evaluation(self, side: str) -> dict[str, float]:
        loss, labels = self._sums.tolist()
        mean = loss / labels if labels else float("nan")
        return {"loss": mean, "perplexity": perplexity(mean), **overlap_metrics(*self._written(side))}

    def _written(self, side: str) -> tuple[list[str], list[str]]:
        """What the model writes for the sample, and what stands there; each device writes its share.

        All devices do the same forward passes, since split weights are gathered in each: where one has less to write,
        it writes something once more, which doesn't count.
        """
        data: Any = self.trainer.datamodule
        dataset = data.datasets[side]
        number = min(self.generate_examples, len(dataset))
        chosen = [len(dataset) * (2 * place + 1) // (2 * number) for place in range(number)]
        rank, devices = self.trainer.global_rank, self.trainer.world_size
        own, share = chosen[rank::devices], -(-number // devices)
        sources = [dataset.input_ids(index) for index in [*own, *chosen[: share - len(own)]]]
        with run_context(self.trainer, self.model):
            likeliest, size = Sampling(self.max_new_tokens, temperature=0), data.config.batch_size
            written = continue_all(self.model, data.tokenizer, sources, likeliest, size, synced_gpus=is_sharded(self))
        # The text itself: its tokens lack what the tokenizer does not know, and what is beyond `target_size`.
        wanted = [data.splits.documents[dataset.documents_of(index)[0]]["target"] for index in own]
        pairs = list(zip(written, wanted, strict=False))
        if devices > 1:
            parts: list[Any] = [None] * devices
            distributed.all_gather_object(parts, pairs)
            pairs = [pair for part in parts for pair in part]
        return [written for written, _ in pairs], [wanted for _, wanted in pairs]
