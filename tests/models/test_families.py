import json
from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from domaintune.config.tasks import declared_tasks
from domaintune.errors import UsageError
from domaintune.models.families import (
    KINDS,
    LEARNT,
    TRANSLATORS,
    can_do,
    check_family,
    check_vocabulary,
    check_writes,
    labels_of,
    learnt_otherwise,
)
from domaintune.models.locating import Checkpoint

DECLARED = declared_tasks()
FITS = {
    "gpt2": {"causal_lm", "sequence_classification", "token_classification"},
    "llama": {"causal_lm", "sequence_classification", "token_classification"},
    "bert": {"masked_lm", "sequence_classification", "token_classification"},
    "roberta": {"masked_lm", "sequence_classification", "token_classification"},
    "distilbert": {"masked_lm", "sequence_classification", "token_classification"},
    "t5": {"seq2seq"},
}


def checkpoint(folder: Path, **config: object) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint("some", folder, "local folder")


@pytest.mark.parametrize("task", DECLARED)
@pytest.mark.parametrize("family", FITS)
def test_a_family_does_what_it_was_built_for_and_nothing_else(tmp_path: Path, family: str, task: str) -> None:
    given = checkpoint(tmp_path, model_type=family)
    if task in FITS[family]:
        check_family(given, DECLARED[task])
    else:
        with pytest.raises(UsageError, match=rf"{family} is (a|an) .* does not fit task={task}; it fits"):
            check_family(given, DECLARED[task])


@pytest.mark.parametrize("task", DECLARED)
def test_families_fit_where_transformers_has_a_class(tmp_path: Path, task: str) -> None:
    known = {
        "causal_lm": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "sequence_classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "token_classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "masked_lm": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    }[task]
    built_for = {family for family in KINDS if KINDS[family] in DECLARED[task].models}
    assert {family for family in KINDS if can_do(family, DECLARED[task])} == {*known} & built_for
    for family in built_for - {*known}:
        with pytest.raises(UsageError, match=rf"transformers has no {family} for task={task}"):
            check_family(checkpoint(tmp_path, model_type=family), DECLARED[task])


@pytest.mark.parametrize("family", TRANSLATORS)
def test_a_model_whose_targets_are_written_otherwise_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(UsageError, match=rf"{family} is a translator.*does not fit task=seq2seq; it fits none"):
        check_family(checkpoint(tmp_path, model_type=family), DECLARED["seq2seq"])


def test_every_task_has_families_and_an_unknown_family_is_left_to_transformers(tmp_path: Path) -> None:
    assert all(each.models for each in DECLARED.values())
    assert {kind for each in DECLARED.values() for kind in each.models} == {*KINDS.values()} - {"translator"}
    check_family(checkpoint(tmp_path, model_type="gpt99"), DECLARED["seq2seq"])


def test_the_labels_of_a_head_come_in_their_order(tmp_path: Path) -> None:
    names = {str(number): f"label {number}" for number in reversed(range(12))}
    made_for = ["BertForSequenceClassification"]
    config = {"architectures": made_for, "id2label": names, "problem_type": "multi_label_classification"}
    given = checkpoint(tmp_path, **config)
    assert labels_of(given, DECLARED["sequence_classification"]) == ([f"label {number}" for number in range(12)], True)
    assert labels_of(given, DECLARED["token_classification"]) is None
    body = checkpoint(tmp_path, architectures=["BertModel"], id2label=names)
    assert labels_of(body, DECLARED["token_classification"]) is None


@pytest.mark.parametrize("head", LEARNT)
def test_a_checkpoint_that_did_not_learn_to_write_is_not_asked_to(tmp_path: Path, head: str) -> None:
    given = checkpoint(tmp_path, model_type="gpt2", architectures=[f"GPT2{head}"])
    with pytest.raises(UsageError, match=rf"it was trained {LEARNT[head]} \(GPT2{head}\), not to write.*predict\.py"):
        check_writes(given, DECLARED["causal_lm"])
    assert learnt_otherwise(given, DECLARED["sequence_classification"]) is None


@pytest.mark.parametrize("made_for", [["GPT2LMHeadModel"], ["GPT2Model"], ["LlamaForCausalLM"], [], None])
def test_a_language_model_or_a_body_writes(tmp_path: Path, made_for: list[str] | None) -> None:
    check_writes(checkpoint(tmp_path, model_type="gpt2", architectures=made_for), DECLARED["causal_lm"])


def test_more_tokens_than_embeddings_are_told_with_both_numbers(tmp_path: Path) -> None:
    given = checkpoint(tmp_path, vocab_size=8192)
    with pytest.raises(UsageError, match=r"8,194 tokens and its model 8,192 embeddings.*model\.resize_embeddings=true"):
        check_vocabulary(given, 8194)
    check_vocabulary(given, 8194, resizes=True)
    check_vocabulary(given, 8192)
    check_vocabulary(given, None)
    check_vocabulary(checkpoint(tmp_path), 8194)
