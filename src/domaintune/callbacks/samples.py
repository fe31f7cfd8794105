"""Text from fixed prompts, at every validation: what the model writes, next to what its loss says."""

from typing import Any

import lightning as L

from domaintune.generation import Sampling, continue_text

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
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule
        if self.prompts is None:
            self.prompts = openings(data, self.number)
        model: Any = pl_module.model
        self.texts = {prompt: continue_text(model, data.tokenizer, prompt, self.sampling) for prompt in self.prompts}
        text = "\n\n---\n\n".join(_preformatted(*pair) for pair in self.texts.items())
        for logger in trainer.loggers:
            if isinstance(logger, L.pytorch.loggers.TensorBoardLogger):
                logger.experiment.add_text("samples", text, trainer.global_step)


def _preformatted(prompt: str, continuation: str) -> str:
    """As it is: TensorBoard reads Markdown, and text is full of its signs."""
    return "\n".join(f"    {line}" for line in f"{prompt} ⟶{continuation}".split("\n"))


def openings(data: Any, number: int) -> list[str]:
    """The first tokens of validation documents, as text: of `number` documents spread over the whole set."""
    tokens = data.datasets["val"].tokens
    documents = len(tokens.starts) - 1
    chosen = sorted({documents * (2 * place + 1) // (2 * number) for place in range(number)})
    starts = [tokens.starts[document] for document in chosen]
    # Without the end-of-text token of a document that is shorter.
    return [
        data.tokenizer.decode(tokens.ids[start : start + PROMPT_TOKENS], skip_special_tokens=True) for start in starts
    ]
