"""Train a tokenizer on your own text, for a model that starts at random weights: for a script, or a language, that no
checkpoint at hand knows.

    python scripts/make_tokenizer.py data.path=poems.txt out=poems_start
    python train.py model.checkpoint=poems_start model.init=random data.path=poems.txt optim.lr=1e-3

out=FOLDER         gets the tokenizer and the config.json of the untrained model; must not exist yet
vocabulary=8192    how many tokens; fewer where the text has not so many pieces that occur twice
model.checkpoint=  whose shape the model has: embedded:gpt2_tiny unless set, or another decoder
data.KEY=VALUE     settings of the data group. With those that you give train, the train side of its split is read

The tokenizer is a byte-level BPE as GPT-2's (Radford et al., "Language Models are Unsupervised Multitask Learners",
2019): it encodes any text and gives it back unchanged.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from domaintune.cli.arguments import split_arguments, typed
from domaintune.cli.exiting import told
from domaintune.config.checks import check
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.programs import usage_of
from domaintune.config.tasks import declared_task
from domaintune.data.splitting import Splits, check_sides, read_splits
from domaintune.errors import UsageError
from domaintune.files.writing import PART
from domaintune.models.families import check_family
from domaintune.models.locating import Checkpoint, locate, marks_of
from domaintune.runs.folder import say

END_OF_TEXT = "<|endoftext|>"
BYTES = 256  # each is a token
SAMPLE = 1000  # documents that the figures are of


@dataclass
class Arguments:
    """Those that are no settings of a run."""

    out: str = ""
    vocabulary: int = 8192
    paths: PathsArguments = field(default_factory=PathsArguments)


def texts(splits: Splits, side: str) -> Iterator[str]:
    return (splits.documents[int(number)] for number in splits.of(side))


def train(documents: Iterator[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE with at most so many tokens: the end of a text, the bytes, and merges."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, shape: Checkpoint, out: Path) -> None:
    """Writes the tokenizer and the model's configuration in Hugging Face's layout."""
    from transformers import AutoConfig, PreTrainedTokenizerFast  # takes seconds

    config = AutoConfig.from_pretrained(shape.folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=shape.max_positions or 1024,
        clean_up_tokenization_spaces=False,
    )
    config.vocab_size = len(fast)
    config.bos_token_id = config.eos_token_id = fast.eos_token_id
    config.pad_token_id = None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}-", suffix=PART, dir=out.parent) as folder:
        made = Path(folder) / out.name
        fast.save_pretrained(made)
        config.save_pretrained(made)
        made.rename(out)


def density(tokenizer: Tokenizer, documents: list[str]) -> float:
    """Tokens a character."""
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(documents))
    return tokens / max(1, sum(map(len, documents)))


@told
def main() -> None:
    usage, asked = __doc__ or "", Arguments()
    settings = split_arguments(sys.argv[1:], usage)
    typed(asked, {key: settings.pop(key) for key in list(settings) if key.split(".")[0] in vars(asked)})
    if not asked.out:
        raise UsageError(f"give out=FOLDER\n{usage_of(usage)}")
    if asked.vocabulary <= BYTES + 1:
        raise UsageError(f"vocabulary={asked.vocabulary}: {BYTES + 1} are the bytes and the end of a text; give more")
    out = Path(asked.out).expanduser()
    if out.exists():
        raise UsageError(f"out={asked.out}: is there already")
    if unknown := [key for key in settings if not key.startswith(("data.", "model.checkpoint"))]:
        raise UsageError(f"there is no argument {unknown[0]}; --help lists them")
    config = default_config(paths=asked.paths)
    typed(config, settings)
    config = check(OmegaConf.structured(config))
    shape = locate(config.model.checkpoint, needs_weights=False, cache=config.paths.cache)
    check_family(shape, declared_task("causal_lm"))
    if config.data.format != "text":
        raise UsageError(
            "data.format: a tokenizer is made of plain texts; leave it out, and give data.text_column=NAME"
        )
    splits = read_splits(config.data, config.paths.cache, marks_of(config))
    check_sides(splits, config.data)
    tokenizer = train(texts(splits, "train"), asked.vocabulary)
    save(tokenizer, shape, out)
    held_out = [text for text, _ in zip(texts(splits, "val"), range(SAMPLE), strict=False)]
    say(f"{tokenizer.get_vocab_size():,} tokens, {density(tokenizer, held_out):.2f} a character of the validation side")
    say(f"saved in {out}")
