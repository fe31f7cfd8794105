"""Whole runs in everyday circumstances: names of classes, schedules, checkpoints as they are published, moved data."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from everyday import (
    SETTINGS,
    SHORT,
    config_of,
    copied,
    figure,
    is_refused,
    notes,
    paragraph,
    result_of,
    scalars_of,
    sentence,
    works,
    write,
    write_jsonl,
    write_labels,
)
from transformers import AutoModelForCausalLM

EMBEDDED = Path(__file__).parents[2] / "src" / "domaintune" / "assets" / "gpt2_tiny"


@pytest.mark.parametrize("peft", ["", "peft=lora"])
def test_a_checkpoint_names_sampling_settings_and_no_sampling(shell, small_model, tmp_path, peft):
    """So were Llama 2, Vicuna and others published."""
    sampling = {"bos_token_id": 0, "eos_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    model = copied(small_model, tmp_path / "sampling", generation_config=sampling)
    write(shell.home / "notes.txt", notes())
    works(shell, f"python train.py model.checkpoint={model} {peft} data.path=notes.txt name=one {SHORT}")
    assert result_of(shell.home, "one")["status"] == "finished"
    AutoModelForCausalLM.from_pretrained(shell.home / "logs" / "runs" / "one" / "export")


def test_classes_are_named_in_square_brackets(shell, small_model):
    write_labels(shell.home / "states.csv", "[open]", "[/wontfix]")
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=states.csv name=one {SHORT}"
    )
    assert result_of(shell.home, "one")["status"] == "finished"
    measured = works(shell, "python scripts/evaluate.py run=one split=all trainer.accelerator=cpu")
    for text in (printed, measured):
        assert "f1/[open]" in text
        assert "f1/[/wontfix]" in text


def test_classes_are_named_by_prices(shell, small_model):
    write_labels(shell.home / "prices.csv", "$0_to_$50", "$50_to_$200")
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=prices.csv name=one {SHORT}"
    )
    assert result_of(shell.home, "one")["status"] == "finished"
    assert "f1/$0_to_$50" in printed
    assert "f1/$50_to_$200" in printed


def test_classes_are_named_in_chinese(shell, small_model):
    write_labels(shell.home / "chinese.csv", "正面", "负面")
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=chinese.csv name=one {SHORT}"
    )
    assert "missing from" not in printed
    assert "f1/正面" in printed
    assert "f1/负面" in printed


def test_the_monitored_metric_is_another_and_its_direction_follows(shell, small_model):
    write_labels(shell.home / "reviews.csv")
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data=sentiment data.path=reviews.csv task.monitor=val/loss "
        f"callbacks=early_stopping trainer.max_steps=24 trainer.val_check_interval=4 optim.lr=1e-2 name=one {SETTINGS}",
    )
    losses = [value for _, value in scalars_of(shell.home, "one")["val/loss"][1:]]  # the first is from before training
    assert min(losses) < max(losses) - 1e-3
    assert result_of(shell.home, "one")["metrics"]["after"]["val/loss"] == pytest.approx(min(losses), rel=1e-5)


def test_a_run_is_shorter_than_the_interval_of_logging(shell, small_model):
    write(shell.home / "few.txt", "\n\n".join(paragraph(each, 2) for each in range(30)))
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data.path=few.txt trainer.max_steps=6 name=one {SETTINGS}",
    )
    curves = scalars_of(shell.home, "one")
    assert curves["train/loss"][-1][0] == 6
    assert curves["lr"][-1][0] == 6


def test_the_warm_up_is_longer_than_the_run(shell, small_model):
    write(shell.home / "notes.txt", notes())
    printed = works(
        shell,
        f"python train.py model.checkpoint={small_model} data.path=notes.txt optim.lr=2e-3 trainer.max_steps=10 "
        f"scheduler.warmup_steps=2000 trainer.log_every_n_steps=1 name=one {SETTINGS}",
    )
    rates = [value for _, value in scalars_of(shell.home, "one")["lr"]]
    assert len(rates) == 10
    assert max(rates) == pytest.approx(2e-3, rel=0.05)
    assert rates[:4] == sorted(rates[:4])
    assert rates.index(max(rates)) in (4, 5)  # after five steps of warm-up
    assert re.search(r"\b2,?000\b", printed)
    assert re.search(r"warm-?up.*\b5\b|\b5\b.*warm-?up", printed.replace("\n", " "))


def test_the_schedule_counts_steps_where_gradients_are_accumulated(shell, small_model):
    write(shell.home / "notes.txt", notes())
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data.path=notes.txt optim.lr=2e-3 scheduler=linear "
        f"trainer.accumulate_grad_batches=4 trainer.max_steps=6 trainer.log_every_n_steps=1 name=one {SETTINGS}",
    )
    rates = [value for _, value in scalars_of(shell.home, "one")["lr"]]
    assert rates == pytest.approx([2e-3 * (6 - step) / 6 for step in range(6)], rel=1e-4)


def test_the_data_was_moved_between_a_run_and_its_going_on(shell, small_model):
    for place in ("here", "there", "elsewhere"):
        rows = [{"text": f"Day {each}. The tide was at mark {each * 7 % 50}."} for each in range(120)]
        write_jsonl(shell.home / place / "diary.jsonl", rows)
    line = f"python train.py model.checkpoint={small_model} name=one {SETTINGS}"
    works(shell, f"{line} data.path=here/diary.jsonl trainer.max_steps=4")
    shutil.rmtree(shell.home / "here")
    printed = works(shell, f"{line} data.path=there/diary.jsonl trainer.max_steps=8")
    assert "checkpoints/last.ckpt" in printed  # which it went on from
    result = result_of(shell.home, "one")
    assert (result["status"], result["steps"]) == ("finished", 8)
    validated = [step for step, _ in scalars_of(shell.home, "one")["val/loss"][1:]]  # the first is from before training
    assert validated == sorted(set(validated))  # no step was taken twice
    shutil.rmtree(shell.home / "there")
    works(shell, f"{line} data.path=elsewhere/diary.jsonl trainer.max_steps=8")
    assert result_of(shell.home, "one")["started"] == result["started"]  # reported, not trained again


def test_lora_trains_everything_and_its_adapter_opens_over_a_local_base(shell, small_model):
    from peft import AutoPeftModelForCausalLM

    write(shell.home / "notes.txt", notes())
    works(
        shell,
        f"python train.py peft=lora 'peft.targets=[\"*\"]' model.checkpoint={small_model} data.path=notes.txt "
        f"trainer.max_steps=4 optim.lr=1e-2 name=one {SETTINGS}",
    )
    export = shell.home / "logs" / "runs" / "one" / "export"
    merged = logits(AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32))
    adapted = logits(AutoPeftModelForCausalLM.from_pretrained(export / "adapter", dtype=torch.float32))
    assert (adapted - merged).abs().max() < 1e-3
    assert (logits(AutoModelForCausalLM.from_pretrained(small_model)) - merged).abs().max() > 1e-3


def test_lora_trains_everything_of_the_embedded_model(shell):
    from peft import PeftModel

    write(shell.home / "notes.txt", notes())
    works(
        shell,
        f"python train.py peft=lora 'peft.targets=[\"*\"]' data.path=notes.txt trainer.max_steps=4 name=one {SETTINGS}",
    )
    export = shell.home / "logs" / "runs" / "one" / "export"
    merged = logits(AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32))
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    assert (logits(PeftModel.from_pretrained(base, export / "adapter")) - merged).abs().max() < 1e-3


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(20)[None]).logits


def with_more_tokens(small_model: Path, place: Path) -> Path:
    """A checkpoint whose tokenizer was given two tokens, and whose embeddings nobody resized."""
    tokenizer = json.loads((small_model / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    new = [{"id": 8192 + each, "content": f"<|{word}|>", **plain} for each, word in enumerate(("title", "body"))]
    return copied(small_model, place, tokenizer={**tokenizer, "added_tokens": tokenizer["added_tokens"] + new})


def test_tokens_were_added_and_the_embeddings_not_resized(shell, small_model, tmp_path):
    model = with_more_tokens(small_model, tmp_path / "more_tokens")
    write(shell.home / "notes.txt", notes())
    told = is_refused(
        shell, f"DOMAINTUNE_CACHE=cache python train.py model.checkpoint={model} data.path=notes.txt name=one {SHORT}"
    )
    for part in ("8192", "8194", "model.resize_embeddings=true"):
        assert part in told.replace("8,19", "819")
    assert not list((shell.home / "cache").glob("tokens/*"))  # refused before anything was encoded


def test_the_embeddings_are_resized_for_tokens_that_were_added(shell, small_model, tmp_path):
    model = with_more_tokens(small_model, tmp_path / "more_tokens")
    write(shell.home / "notes.txt", notes())
    line = f"python train.py model.checkpoint={model} model.resize_embeddings=true data.path=notes.txt name=one"
    works(shell, f"{line} {SHORT}")
    assert config_of(shell.home, "one")["model"]["resize_embeddings"] is True
    printed = works(shell, 'python scripts/generate.py run=one prompt="<|title|>The baker" max_new_tokens=4')
    assert printed.startswith("<|title|>The baker")


def test_a_model_writes_with_tokens_that_it_has_no_embeddings_for(shell, small_model, tmp_path):
    model = with_more_tokens(small_model, tmp_path / "more_tokens")
    told = is_refused(
        shell, f'python scripts/generate.py model.checkpoint={model} prompt="<|title|>The baker" max_new_tokens=4'
    )
    assert "8194" in told.replace(",", "")


@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_the_loss_of_an_evaluation_is_the_same_for_every_batch_size(shell, small_model, batching):
    rows = [{"text": " ".join(sentence(10 * each + more) for more in range(1 + each % 7))} for each in range(40)]
    write_jsonl(shell.home / "lengths.jsonl", rows)
    line = (
        f"python scripts/evaluate.py model.checkpoint={small_model} data.path=lengths.jsonl data.block_size=64 "
        f"data.batching={batching} trainer.precision=32 trainer.accelerator=cpu"
    )
    losses = [figure(works(shell, f"{line} data.batch_size={size}"), "loss") for size in (1, 3, 8)]
    assert losses == [losses[0]] * 3


def test_two_processes_share_three_validation_documents(shell, small_model):
    write(shell.home / "notes.txt", notes())
    write_jsonl(shell.home / "val.jsonl", [{"text": paragraph(each, 1)} for each in range(700, 703)])
    line = f"python train.py model.checkpoint={small_model} data.path=notes.txt data.val_path=val.jsonl {SHORT}"
    works(shell, f"{line} name=one")
    two = line.replace("trainer=cpu", "trainer=ddp trainer.devices=2 trainer.accelerator=cpu")
    works(shell, f"{two} name=two")
    one, two = (result_of(shell.home, name)["metrics"]["before"]["val/loss"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-6)
