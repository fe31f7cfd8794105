from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from torchmetrics.text import CHRFScore
from torchmetrics.text.rouge import ROUGEScore
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, BartForConditionalGeneration

from domaintune.models.loading import decoder_output, head_is_linear
from domaintune.preparing import prepare
from domaintune.tasks import seq2seq
from domaintune.tasks.metrics import overlap_metrics
from domaintune.training import build, evaluate, train


@pytest.fixture
def built(prepared: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    def made(*overrides: str) -> tuple[Any, Any]:
        given, _ = prepared("seq2seq", "t5", *overrides)
        data, task = build(given, L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        return data, task.eval()

    return made


def one_by_one(model: Any, examples: list[Any]) -> tuple[float, int]:
    """transformers' own loss of each pair alone, times its tokens."""
    total, tokens = 0.0, 0
    for example in examples:
        loss = model(input_ids=example["input_ids"][None], labels=example["labels"][None]).loss
        total, tokens = total + float(loss) * len(example["labels"]), tokens + len(example["labels"])
    return total, tokens


def test_the_loss_is_the_sum_over_target_tokens_whatever_the_batch(built: Callable[..., Any]) -> None:
    data, task = built()
    examples = [data.datasets["train"].example(index) for index in range(12)]
    with torch.no_grad():
        loss, tokens = task(data._collation("val")([[example] for example in examples]))
        wanted, count = one_by_one(task.model, examples)
    assert task.head_is_linear
    assert int(tokens) == count
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_both_ways_to_the_loss_give_the_same_gradient(built: Callable[..., Any]) -> None:
    data, task = built()
    batch = data._collation("val")([[data.datasets["train"].example(index)] for index in range(8)])
    gradients = []
    for linear in (True, False):
        task.head_is_linear = linear
        task.zero_grad()
        task(batch)[0].backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in task.parameters() if weight.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_the_states_that_t5_hands_to_its_head_are_scaled(built: Callable[..., Any]) -> None:
    _, task = built()
    inputs = {"input_ids": torch.arange(3, 9)[None], "decoder_input_ids": torch.arange(3, 7)[None]}
    head = task.model.lm_head
    with torch.no_grad():
        states = decoder_output(task.model, inputs)
        assert torch.allclose(states @ head.weight.T, task.model(**inputs).logits, atol=1e-5)
    assert task.model.lm_head is head
    assert task.model.config.scale_decoder_outputs


def test_a_head_with_a_bias_behind_it_takes_the_way_over_the_logits() -> None:
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    shape = BartConfig(vocab_size=96, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, **small)
    model = BartForConditionalGeneration(shape)
    head = model.get_output_embeddings()
    assert not head_is_linear(model)
    assert model.get_output_embeddings() is head


def test_overlap_is_that_of_torchmetrics() -> None:
    written, wanted = ["the cat sat", "a dog"], ["the cat sat down", "no dog here"]
    got = overlap_metrics(written, wanted)
    rouge = ROUGEScore(rouge_keys=("rouge1", "rouge2", "rougeL"))(written, wanted)
    chrf = CHRFScore(n_word_order=0)(written, [[text] for text in wanted])
    assert got == pytest.approx(
        {**{key: float(rouge[f"{key}_fmeasure"]) for key in ("rouge1", "rouge2", "rougeL")}, "chrf": float(chrf)}
    )
    assert overlap_metrics([], []) == {}


@pytest.mark.parametrize(
    ("written", "wanted", "rouge1"),
    [
        ("北京大學在春天開放", "北京大學在春天開放", 1.0),
        ("北京", "北京大學", 2 / 3),  # a character is a word
        ("t la mer", "été à la mer", 4 / 7),
        ("été", "e\u0301te\u0301", 1.0),  # the same letters, composed otherwise
        ("हिन्दी भाषा", "हिन्दी", 2 / 3),  # marks belong to their words
        ("foo_bar(x)", "foo bar x", 1.0),  # as torchmetrics has it
    ],
)
def test_rouge_counts_the_words_of_all_scripts(written: str, wanted: str, rouge1: float) -> None:
    assert overlap_metrics([written], [wanted])["rouge1"] == pytest.approx(rouge1)


def test_what_is_wanted_is_the_whole_target(prepared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that is cut off where it is learnt."""
    seen: list[str] = []
    monkeypatch.setattr(seq2seq, "overlap_metrics", lambda written, wanted: seen.extend(wanted) or {})  # noqa: ARG005
    given, run = prepared("seq2seq", "t5", "data.target_size=3")
    train(given, run)
    documents = given.splits.documents
    targets = [documents[int(number)]["target"] for number in given.splits.of("val")]
    assert seen
    assert set(seen) <= set(targets)


def test_long_sources_and_targets_are_cut_off_and_counted(built: Callable[..., Any]) -> None:
    data, _ = built("data.block_size=6", "data.target_size=4")
    dataset, account = data.datasets["train"], data.account()["train"]
    example = dataset.example(0)
    assert len(example["input_ids"]) <= 6
    assert len(example["labels"]) <= 4
    end = data.tokenizer.eos_token_id
    assert example["input_ids"][-1] == example["labels"][-1] == end
    held = int((dataset.lengths + dataset.target_lengths - 2 * len(dataset.specials)).sum())
    assert account["dropped_tokens"] == account["tokens"] - held > 0
    assert account["cut_documents"] > 0


def test_a_run_learns_writes_and_exports(prepared: Callable[..., Any]) -> None:
    settings = ["trainer.max_steps=80", "trainer.max_epochs=-1", "trainer.val_check_interval=40"]
    given, run = prepared("seq2seq", "t5", *settings)
    train(given, run)
    before, after = run.result["metrics"]["before"], run.result["metrics"]["after"]
    assert after["val/loss"] < before["val/loss"] - 1
    assert {"val/rouge1", "val/rouge2", "val/rougeL", "val/chrf"} <= after.keys()
    assert len(run.result["samples"]["after"]) == 3
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run.export), AutoTokenizer.from_pretrained(run.export)
    written = model.generate(**tokenizer("summarize: good film in Paris", return_tensors="pt"), max_new_tokens=8)
    assert tokenizer.decode(written[0], skip_special_tokens=True)
    given.config.model.checkpoint = str(run.export)
    metrics, _, unit, _ = evaluate(prepare(given.config))
    assert unit == "target tokens"
    assert "test/rougeL" in metrics
