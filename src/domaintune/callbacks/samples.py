"""Text from fixed prompts, at every validation: what the model writes, next to what its loss says."""

from typing import Any

import lightning as L
import numpy as np

from domaintune.data.tokenizing import CONTEXT
from domaintune.generation import Sampling, continue_text
from domaintune.sharding import is_sharded

PROMPT_TOKENS = 12  # of a validation document that serves as a prompt


class Samples(L.Callback):
    """Continues the same prompts with the same seed at every validation and writes them to TensorBoard's Text tab.

    Args:
        prompts: null takes the openings of validation documents.
        number: how many openings.
        max_new_tokens, temperature, top_p, seed: see `domaintune.generation.Sampling`.

    Attributes:
        texts: {prompt: continuation} of the latest validation.
    """

    def __init__(self, prompts: list[str] | str | None = None, number: int = 3, **sampling: Any) -> None:
        self.prompts, self.number = [prompts] if isinstance(prompts, str) else prompts, number
        self.sampling = Sampling(**sampling)
        self.texts: dict[str, str] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        task: Any = pl_module
        # Of split weights one process can't make use alone.
        if not task.continues or not trainer.is_global_zero or is_sharded(pl_module):
            return
        data: Any = trainer.datamodule
        if self.prompts is None:
            self.prompts = openings(data, self.number)
        model: Any = pl_module.model
        self.texts = {prompt: continue_text(model, data.tokenizer, prompt, self.sampling) for prompt in self.prompts}
        text = "\n\n---\n\n".join(_preformatted(*pair) for pair in self.texts.items())
        for logger in trainer.loggers:
            if isinstance(logger, L.pytorch.loggers.TensorBoardLogger):
                # Below the step of the checkpoint that follows: a run that goes on from there draws anew what isn't.
                logger.experiment.add_text("samples", text, max(0, trainer.global_step - 1))


def _preformatted(prompt: str, continuation: str) -> str:
    """As it is: TensorBoard reads Markdown, and text is full of its signs."""
    return "\n".join(f"    {line}" for line in f"{prompt} ⟶{continuation}".split("\n"))


def openings(data: Any, number: int) -> list[str]:
    """How validation documents begin, as text: of `number` documents spread over the whole set."""
    val = data.datasets["val"]
    if data.config.format == "pairs":
        chosen = sorted({len(val) * (2 * place + 1) // (2 * number) for place in range(number)})
        return [str(data.tokenizer.decode(val.input_ids(place), skip_special_tokens=True)) for place in chosen]
    chosen = sorted({len(val.documents) * (2 * place + 1) // (2 * number) for place in range(number)})
    return [opening(data.tokenizer, data.tokens, int(val.firsts[place]), int(val.ends[place])) for place in chosen]


def opening(tokenizer: Any, tokens: Any, first: int, end: int) -> str:
    """What a document gives before its first answer; of plain text the first few tokens."""
    counts = tokens.byte_counts(first, end)
    context = int(np.argmax(counts != CONTEXT)) if tokens.has_context else 0
    ids = tokens.ids(first, min(end, first + (context or PROMPT_TOKENS)))
    # A chat's special tokens belong to the prompt; the end-of-text token of a short document doesn't.
    return str(tokenizer.decode(ids, skip_special_tokens=not context))
