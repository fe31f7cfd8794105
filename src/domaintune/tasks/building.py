"""The task that a config names."""

from transformers import PreTrainedModel

from domaintune.data.labelling import Labels
from domaintune.settings import Config
from domaintune.tasks.base import FineTuningTask
from domaintune.tasks.causal_lm import CausalLM
from domaintune.tasks.masked_lm import MaskedLM
from domaintune.tasks.seq2seq import Seq2Seq
from domaintune.tasks.sequence_classification import SequenceClassification, balanced_weights
from domaintune.tasks.token_classification import TokenClassification


def build_task(config: Config, model: PreTrainedModel, labels: Labels | None, train_documents: int) -> FineTuningTask:
    """The task around a loaded model.

    Args:
        labels: of the documents, where labels are learnt.
        train_documents: of the training side.
    """
    given = (model, config.optim, config.scheduler)
    match config.task.name:
        case "sequence_classification":
            assert labels is not None
            weights = None
            if config.task.class_weights == "balanced":
                weights = balanced_weights(labels.counts["train"], labels.several, train_documents)
            return SequenceClassification(*given, weights)
        case "token_classification":
            return TokenClassification(*given)
        case "seq2seq":
            return Seq2Seq(*given, config.task.generate_examples, config.data.target_size)
        case "masked_lm":
            return MaskedLM(*given)
    compile_for = (config.data.batch_size, config.data.block_size) if config.model.compile else None
    return CausalLM(*given, compile_for)
