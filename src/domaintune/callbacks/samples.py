"""Text from fixed prompts, at every validation: what the model writes, next to what its loss says."""

from typing import Any

import lightning as L
import numpy as np

from domaintune.data.encoder import CONTEXT, Encoder, specials_of
from domaintune.models.generation import Sampling, continue_text, encode_prompt, run_context, without_half
from domaintune.models.sharding import is_sharded

PROMPT_TOKENS = 12  # of a validation document that serves as a prompt


class Samples(L.Callback):
    """Continues the same prompts with the same seed at every validation and writes them to TensorBoard's Text tab.

    Args:
        prompts: null takes the openings of validation documents.
        number: how many openings.
        max_new_tokens, temperature, top_p, seed: see `domaintune.models.generation.Sampling`.

    Attributes:
        texts: {prompt: continuation} of the latest validation.
    """

    def __init__(self, prompts: list[str] | str | None = None, number: int = 3, **sampling: Any) -> None:
        self.prompts, self.number = [prompts] if isinstance(prompts, str) else prompts, number
        self.sampling = Sampling(**sampling)
        self.texts: dict[str, str] = {}
        self._given: dict[str, list[int]] | None = None  # {prompt: its ids}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        task: Any = pl_module
        # Of split weights one process can't make use alone.
        if not task.continues or not trainer.is_global_zero or is_sharded(pl_module):
            return
        data: Any = trainer.datamodule
        model: Any = pl_module.model
        if self._given is None:
            self._given = self._encoded(data, model)
        with run_context(trainer, model):
            # Each alone: attention between packed documents takes no mask that would hide a prompt's padding.
            self.texts = {
                prompt: continue_text(model, data.tokenizer, ids, self.sampling) for prompt, ids in self._given.items()
            }
        text = "\n\n---\n\n".join(_preformatted(*pair) for pair in self.texts.items())
        for logger in trainer.loggers:
            if isinstance(logger, L.pytorch.loggers.TensorBoardLogger):
                logger.experiment.add_text("samples", text, trainer.global_step)

    def _encoded(self, data: Any, model: Any) -> dict[str, list[int]]:
        """The prompts and their ids. Those of openings are kept: text would not tell a control sign from its name."""
        if self.prompts is None:
            return openings(data, self.number)
        encoder = Encoder(data.tokenizer)
        return {prompt: encode_prompt(data.tokenizer, encoder, prompt, model, data.config) for prompt in self.prompts}


def _preformatted(prompt: str, continuation: str) -> str:
    """As it is: TensorBoard reads Markdown, and text is full of its signs."""
    return "\n".join(f"    {line}" for line in f"{prompt} ⟶{continuation}".split("\n"))


def openings(data: Any, number: int) -> dict[str, list[int]]:
    """How validation documents begin, as text and as ids: of `number` documents spread over the whole set."""
    val = data.datasets["val"]
    if data.config.format == "pairs":
        chosen = sorted({len(val) * (2 * place + 1) // (2 * number) for place in range(number)})
        sources = [val.input_ids(place).tolist() for place in chosen]
        return {str(data.tokenizer.decode(ids, skip_special_tokens=True)): ids for ids in sources}
    chosen = sorted({len(val.documents) * (2 * place + 1) // (2 * number) for place in range(number)})
    return dict(opening(data.tokenizer, data.tokens, int(val.firsts[place]), int(val.ends[place])) for place in chosen)


def opening(tokenizer: Any, tokens: Any, first: int, end: int) -> tuple[str, list[int]]:
    """What a document gives before its first answer; of plain text the first few tokens.

    The text doesn't show what the tokenizer puts before every text, nor a character of which the end is missing.
    """
    counts, before = tokens.byte_counts(first, end), specials_of(tokenizer).before.tolist()
    context = int(np.argmax(counts != CONTEXT)) if tokens.has_context else 0
    ids = tokens.ids(first, min(end, first + (context or len(before) + PROMPT_TOKENS))).tolist()
    opens = len(before) if ids[: len(before)] == before else 0
    if not context and ids[-1] == tokenizer.eos_token_id and len(ids) > opens + 1:
        ids = ids[:-1]  # the end of a short document is no part of its beginning
    text = str(tokenizer.decode(ids[opens:], skip_special_tokens=False))
    while not context and len(ids) > opens + 1 and without_half(text) != text:  # a character of several tokens
        ids = ids[:-1]
        text = str(tokenizer.decode(ids[opens:], skip_special_tokens=False))
    return text, ids
