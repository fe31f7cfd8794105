"""The task that a config names."""

from transformers import PreTrainedModel

from domaintune.config.schema import Config
from domaintune.tasks.base import FineTuningTask
from domaintune.tasks.causal_lm import CausalLM
from domaintune.tasks.masked_lm import MaskedLM
from domaintune.tasks.seq2seq import Seq2Seq
from domaintune.tasks.sequence_classification import SequenceClassification, balanced_weights
from domaintune.tasks.token_classification import TokenClassification


def build_task(config: Config, model: PreTrainedModel, trained_on: tuple[dict[str, int], int] | None) -> FineTuningTask:
    """The task around a loaded model.

    Args:
        trained_on: see `Prepared`; of tasks that learn labels.
    """
    given = (model, config.optim, config.scheduler)
    match config.task.name:
        case "sequence_classification":
            weights = None
            if config.task.class_weights == "balanced":
                assert trained_on is not None
                several = model.config.problem_type == "multi_label_classification"
                weights = balanced_weights(trained_on[0], several, trained_on[1])
            return SequenceClassification(*given, weights)
        case "token_classification":
            return TokenClassification(*given)
        case "seq2seq":
            return Seq2Seq(*given, config.task.generate_examples, config.data.target_size)
        case "masked_lm":
            return MaskedLM(*given)
    compile_for = (config.data.batch_size, config.data.block_size) if config.model.compile else None
    return CausalLM(*given, compile_for)
