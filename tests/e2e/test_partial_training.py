"""Runs that train a part of a model: adapters, or what isn't frozen."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import folder_of, result_of, weights_of
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LORA = ("peft=lora", "peft.rank=4", "peft.dropout=0.1", "scheduler=constant", "scheduler.warmup_steps=2")
FROZEN = ("model.freeze=[*.wte.*,*.h.0.*]", "optim.layer_decay=0.5", "scheduler=constant", "scheduler.warmup_steps=2")
IDS = torch.arange(40)[None]


@pytest.fixture(scope="session")
def quick(quick: list[str]) -> list[str]:
    return [*quick, "checkpoint.every_steps=5"]


def done(command: Any, file: str, *arguments: str) -> str:
    run = command(file, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout


def problem(command: Any, *arguments: str) -> str:
    run = command("train.py", *arguments)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.fixture(scope="session")
def lora(command, quick) -> Path:
    done(command, "train.py", "name=lora", *quick, *LORA)
    return folder_of(command, "lora")


@pytest.fixture(scope="session")
def frozen(command, quick) -> Path:
    done(command, "train.py", "name=frozen", *quick, *FROZEN)
    return folder_of(command, "frozen")


def test_adapters_learn_and_checkpoints_hold_them_alone(lora):
    result = result_of(lora)
    assert result["metrics"]["after"]["val/loss"] < result["metrics"]["before"]["val/loss"] - 0.01
    for name in ("best", "last"):
        weights = weights_of(lora, name)
        assert all(".lora_" in weight for weight in weights)
        assert sum(weight.numel() for weight in weights.values()) == result["weights"]["trained_parameters"]
    assert (lora / "checkpoints" / "best.ckpt").stat().st_size < (
        lora / "export" / "model.safetensors"
    ).stat().st_size / 5
    state = torch.load(lora / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert len(state) == len(weights_of(lora))


def test_the_plan_says_how_many_parameters_are_trained(command, quick, lora):
    plan = done(command, "train.py", "name=planned", *quick, *LORA, "trainer.max_steps=1")
    trained = result_of(lora)["weights"]["trained_parameters"]
    assert f"{trained:,} of them trained (LoRA)" in " ".join(plan.split())


def test_the_export_is_merged_and_its_adapter_opens_in_peft(lora, small_model):
    merged = AutoModelForCausalLM.from_pretrained(lora / "export")
    base = AutoModelForCausalLM.from_pretrained(small_model)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model), lora / "export" / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(merged.eval()(IDS).logits, adapted.eval()(IDS).logits)
        assert (merged(IDS).logits - base.eval()(IDS).logits).abs().max() > 1e-3
    best = weights_of(lora, "best")
    for name, weight in load_file(lora / "export" / "adapter" / "adapter_model.safetensors").items():
        place = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        assert torch.equal(weight, best[f"model.{place}"])


def test_evaluate_and_generate_take_the_merged_model(command, lora):
    shown = done(command, "scripts/evaluate.py", f"run={lora}", "split=val")
    loss = next(line for line in shown.splitlines() if "loss" in line).split("│")[2]
    assert float(loss) == pytest.approx(result_of(lora)["metrics"]["after"]["val/loss"], rel=2e-3)  # bf16, merged
    assert done(command, "scripts/generate.py", f"run={lora}", "prompt=The ", "max_new_tokens=4").startswith("The ")


@pytest.mark.parametrize(("name", "settings"), [("lora", LORA), ("frozen", FROZEN)])
def test_it_goes_on_exactly(command, quick, name, settings):
    command_line = ("train.py", f"name={name}_stopped", *quick, *settings)
    done(command, *command_line)
    folder = folder_of(command, f"{name}_stopped")
    whole, weights = result_of(folder), weights_of(folder)
    assert torch.load(folder / "checkpoints" / "previous.ckpt", weights_only=True)["global_step"] == 10
    (folder / "checkpoints" / "last.ckpt").unlink()
    (folder / "result.json").write_text(json.dumps({**whole, "status": "running"}))
    assert "previous.ckpt" in done(command, *command_line)
    again = weights_of(folder)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[key], weights[key]) for key in again)
    assert result_of(folder)["metrics"] == whole["metrics"]


def test_what_is_frozen_is_in_the_export_as_it_was(frozen, small_model):
    base, export = (load_file(folder / "model.safetensors") for folder in (small_model, frozen / "export"))
    same = {name for name in base if torch.equal(base[name], export[name])}
    assert same == {name for name in base if ".wte." in name or ".h.0." in name}
    assert not any(".wte." in name or ".h.0." in name for name in weights_of(frozen))


@pytest.mark.parametrize("changed", ["peft.rank=5", "peft.targets=['*.c_fc']", "model.freeze=['*.h.0.*']"])
def test_another_part_is_refused_under_the_same_name(command, quick, lora, changed):
    told = problem(command, "name=lora", *quick, *LORA, changed)
    assert "holds a run with another config" in told
    assert changed.split("=")[0] in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.freeze=[transformer.h.0.atn.*]"], "matches nothing; nearest are transformer.h.0.attn"),
        (["model.freeze=['*']"], "leaves nothing to train"),
        (["peft=lora", "peft.targets=['*.c_atn']"], "peft.targets: *.c_atn matches nothing; nearest are"),
        (["peft=lora", "model.init=random"], "model.init=random has none"),
        (["peft.rank=4"], "peft.rank goes with peft=lora"),
        (["optim.head_lr=1e-3"], "no head is trained that is its own"),
        (["optim.layer_decay=1.5"], "optim.layer_decay=1.5: must be above 0 and at most 1"),
    ],
)
def test_what_cannot_be_trained_is_told(command, quick, settings, words):
    assert words in problem(command, "name=wrong", *quick, *settings)


def test_ranks_are_swept(command, quick):
    done(command, "train.py", "-m", "name=ranks", *quick, "peft=lora", "peft.rank=2,4", "trainer.max_steps=2")
    sizes = {
        result_of(folder)["weights"]["trained_parameters"]
        for folder in (command.home / "logs" / "sweeps" / "ranks").glob("peft.rank=*")
    }
    assert len(sizes) == 2


@pytest.mark.slow
@pytest.mark.long
def test_adapters_compile_to_the_same_losses(command, quick):
    losses = []
    for compiled in ("false", "true"):
        name = f"lora_compiled_{compiled}"
        more = [f"model.compile={compiled}", "trainer.precision=32", f"name={name}"]
        done(command, "train.py", *quick, *LORA, *more)
        losses.append(result_of(folder_of(command, name))["metrics"]["last"]["val/loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("settings", [LORA, FROZEN], ids=["lora", "frozen"])
def test_two_processes_end_like_one(command, quick, strategy, settings):
    rest = [argument for argument in quick if argument != "trainer=cpu"]
    part = [*settings, "model.dropout=0", "trainer.precision=32"]
    part = [argument for argument in part if "peft.dropout" not in argument]
    names = [f"{settings[0][:4]}_{strategy}_{number}" for number in ("one", "two")]
    done(command, "train.py", f"name={names[0]}", *quick, *part, "data.batch_size=4")
    two = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]
    done(command, "train.py", f"name={names[1]}", *rest, *part, *two, "trainer.max_steps=8")
    done(command, "train.py", f"name={names[1]}", *rest, *part, *two)  # goes on
    one, other = (weights_of(folder_of(command, name)) for name in names)
    assert one.keys() == other.keys()
    a, b = (torch.cat([weights[name].flatten() for name in sorted(one)]) for weights in (one, other))
    assert (a - b).norm() <= 1e-4 * a.norm()
    first, second = (load_file(folder_of(command, name) / "export" / "model.safetensors") for name in names)
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
