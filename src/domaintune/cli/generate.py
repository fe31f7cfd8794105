"""Let a model continue text, or write what a sequence-to-sequence one makes of it.

    python scripts/generate.py run=NAME prompt="The walrus operator"
    python scripts/generate.py model.checkpoint=openai-community/gpt2 prompts=prompts.txt temperature=0

run=NAME                a run by its name or folder, or a sweep's trial as SWEEP/TRIAL; or
model.checkpoint=ID     an export/ folder, another local folder, a Hub id, embedded:gpt2_tiny or run:NAME
prompt=TEXT             taken as it is, commas and equal signs included
prompts=FILE            one prompt a line; of a table (.jsonl, .csv, ...) the field `prompt`; packed or not (.gz)
data.encoding=          of that file; unset: UTF-8
data.text_column=       the field of a table
paths.logs=             where runs are, as train was told
chat=true               a prompt is a message to answer, written as the model's chat template has it
max_new_tokens=120  temperature=0.8  top_p=0.95  seed=0
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from domaintune.cli.arguments import remind_of_chats, run_folder, split_arguments, typed
from domaintune.cli.exiting import told
from domaintune.config.checks import find_checkpoint
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.programs import program
from domaintune.config.schema import Config, DataConfig
from domaintune.config.tasks import declared_task
from domaintune.data.charsets import find_codec
from domaintune.data.finding import TABLES, Source, kind_of_file
from domaintune.data.formats.choosing import fields_of
from domaintune.data.inputs import find_inputs, read_inputs
from domaintune.errors import UsageError
from domaintune.models.families import check_family, check_vocabulary, check_writes
from domaintune.models.locating import locate
from domaintune.run_exports import model_of_run
from domaintune.runs.folder import config_of_run


@dataclass
class ModelArguments:
    checkpoint: str | None = None


@dataclass
class DataArguments:
    encoding: str | None = None
    text_column: str = "prompt"


@dataclass
class Arguments:
    run: str | None = None
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    paths: PathsArguments = field(default_factory=PathsArguments)
    prompt: str | None = field(default=None, metadata={"kind": "literal"})
    prompts: str | None = None
    chat: bool = False
    max_new_tokens: int = 120
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0


def read_prompts(arguments: Arguments, config: Config) -> list[str]:
    """The prompt, or the lines of the file; of a table one of its fields."""
    if (arguments.prompt is None) == (arguments.prompts is None):
        raise UsageError("give one of prompt=TEXT and prompts=FILE")
    if arguments.prompts is None:
        return [arguments.prompt or ""]
    data = DataConfig(unit="line", **vars(arguments.data))
    file = Path(arguments.prompts).expanduser()
    try:
        if kind_of_file(file) in TABLES:
            found = find_inputs(arguments.prompts, data, config.paths.cache, data.encoding)
            sources, notes = found.sources, found.notes
        else:  # lines, whatever the file is called
            codec = None if data.encoding is None else find_codec(data.encoding)
            sources, notes = [Source(str(file), ".txt", encoding=codec)], []
        rows = list(read_inputs(sources, fields_of(data)))
    except UsageError as error:
        raise UsageError(f"prompts={arguments.prompts}: {error}") from error
    prompts = [row.text for row in rows if row.text is not None]
    left_out = [f"{row.place}: left out, {row.left_out}" for row in rows if row.left_out is not None]
    for note in [*notes, *(f"{source.name}: {note}" for source in sources for note in source.notes), *left_out]:
        print(f"note: {note}", file=sys.stderr)
    if not prompts:
        raise UsageError(f"prompts={arguments.prompts}: no prompt in it")
    return prompts


def check_sampling(arguments: Arguments) -> None:
    """Raises UsageError where a number can't be sampled with."""
    if arguments.max_new_tokens < 1:
        raise UsageError(f"max_new_tokens={arguments.max_new_tokens}: must be at least 1")
    if not arguments.temperature >= 0:
        raise UsageError(f"temperature={arguments.temperature:g}: must be at least 0")
    if not 0 < arguments.top_p <= 1:
        raise UsageError(f"top_p={arguments.top_p:g}: must be above 0 and at most 1")


def model_and_training(arguments: Arguments, config: Config) -> tuple[str, Config | None]:
    """The model's folder or name, and the config that it was trained with where a run is named.

    Raises:
        UsageError: it doesn't write.
    """
    if arguments.run is None:
        return find_checkpoint(arguments.model.checkpoint or "", config.paths), None
    folder = run_folder(arguments.run, config.paths)
    trained = config_of_run(folder)
    task = trained.task
    if "text" not in task.predicts:
        asks = f"; {program('predict')} run={arguments.run} input=FILE output=FILE asks it" * bool(task.predicts)
        raise UsageError(f"run={arguments.run}: its task, {task.name}, does not write text{asks}")
    export = model_of_run(folder, config.paths.cache)
    remind_of_chats(trained, export, arguments.chat)
    return str(export), trained


def streamer_of(tokenizer: Any) -> Any:
    """Prints text as it is written, whole characters alone."""
    from transformers import TextStreamer

    from domaintune.models.generation import without_half

    class WholeCharacters(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            super().on_finalized_text(without_half(text) if stream_end else text, stream_end)

    return WholeCharacters(tokenizer, skip_prompt=True, skip_special_tokens=True)


@told
def main() -> None:
    arguments = Arguments()
    typed(arguments, split_arguments(sys.argv[1:], __doc__ or ""))
    check_sampling(arguments)
    config = default_config(paths=arguments.paths)
    prompts = read_prompts(arguments, config)
    if (arguments.run is None) == (arguments.model.checkpoint is None):
        raise UsageError("give one of run=NAME and model.checkpoint=ID_OR_FOLDER")
    name, trained = model_and_training(arguments, config)
    checkpoint = locate(name, cache=config.paths.cache)
    usual = "seq2seq" if checkpoint.config.get("is_encoder_decoder") else "causal_lm"
    task = trained.task if trained else declared_task(usual)
    check_family(checkpoint, task)
    check_writes(checkpoint, task)

    import torch

    from domaintune.data.encoder import Encoder
    from domaintune.kernels.hardware import prediction_device
    from domaintune.models.generation import Sampling, continue_text, encode_prompt, encode_question
    from domaintune.models.loading import load_model, load_tokenizer, tokens_of
    from domaintune.tasks.base import task_class

    head = task_class(task).head
    tokenizer = load_tokenizer(checkpoint, head)
    if arguments.chat and tokenizer.chat_template is None:
        raise UsageError(f"chat=true: {checkpoint.name} has no chat template")
    tokens = tokens_of(tokenizer)
    check_vocabulary(checkpoint, tokens)
    model = load_model(checkpoint, config.model, head, torch.float32, seed=0, tokens=tokens).to(prediction_device())
    encoder = Encoder(tokenizer)
    encode = (
        partial(encode_question, tokenizer, encoder)
        if arguments.chat
        else partial(encode_prompt, tokenizer, encoder, model=model, data=trained.data if trained else None)
    )
    sampling = Sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_p, arguments.seed)
    streamer = streamer_of(tokenizer)
    for number, prompt in enumerate(prompts):
        print("\n---\n" * (number > 0) + prompt, end="\n\n" if arguments.chat else "", flush=True)
        continue_text(model, tokenizer, encode(prompt), sampling, streamer)
