"""The contract of a run: its folder, its names, its exit codes."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def hyperparameters(events: EventAccumulator) -> dict:
    """What TensorBoard's HPARAMS tab shows of a run."""
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in shown.items()}


def charts(events: EventAccumulator) -> set[str]:
    """The curves of the CUSTOM SCALARS tab."""
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag}


def test_the_folder_holds_what_the_contract_says(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {
        "config.yaml",
        "result.json",
        "checkpoints",
        "hparams.yaml",
        "export",
        "output.log",
        "validation.npz",
    }
    checkpoints = {path.name for path in (folder / "checkpoints").iterdir()}
    assert checkpoints == {"best.ckpt", "best.ckpt.sha256", "last.ckpt", "last.ckpt.sha256"}
    assert (folder / "config.yaml").read_text().startswith("# python ")


def test_the_result_is_complete_and_training_helped(finished):
    result = result_of(finished[0])
    assert result["status"] == "finished"
    assert set(result["metrics"]) == {"before", "last", "after"}
    assert set(result["metrics"]["after"]) == {"val/loss", "val/perplexity", "val/bits_per_byte"}
    assert result["metrics"]["after"]["val/loss"] < result["metrics"]["before"]["val/loss"] - 0.5
    assert result["steps"] == 20
    assert 0 < result["best_step"] <= 20
    assert 0 < result["tokens_trained"] <= 20 * 8 * 63
    assert result["tokens_per_second"] > 0
    assert 0.1 < result["peak_memory_gb"] < 20
    assert len(result["weights"]["sha256"]) == len(result["data"]["sha256"]) == 64
    assert result["data"]["train"]["predicted_tokens"] == (
        result["data"]["train"]["tokens"] - result["data"]["train"]["documents"]
    )
    assert {"python", "torch", "lightning", "transformers"} <= set(result["versions"])
    assert set(result["git"]) == {"commit", "dirty"}


def test_losses_by_validation_document_add_up_to_the_metrics_of_the_best_checkpoint(finished):
    result = result_of(finished[0])
    with np.load(finished[0] / "validation.npz", allow_pickle=False) as kept:
        loss, tokens, text_bytes = (kept[name].sum() for name in ("loss", "tokens", "bytes"))
        assert len(kept["hash"]) == result["validation"]["documents"] == result["data"]["val"]["documents"]
    after = result["metrics"]["after"]
    assert loss / tokens == pytest.approx(after["val/loss"], abs=1e-9)
    assert loss / np.log(2) / text_bytes == pytest.approx(after["val/bits_per_byte"], abs=1e-9)
    assert len(result["validation"]["sha256"]) == len(result["validation"]["tokenizer"]) == 64


def test_it_prints_before_and_after_a_sample_the_place_and_three_commands(finished):
    folder, done = finished
    for words in (
        "perplexity",
        "sample before",
        "sample after",
        "logs/runs/finished",
        "scripts/generate.py",
        "try next",
    ):
        assert words in done.stdout
    after = result_of(folder)["metrics"]["after"]["val/perplexity"]
    assert f"{after:.4g}" in done.stdout


def test_the_export_opens_in_plain_transformers_with_the_loss_of_the_best_checkpoint(finished):
    export = finished[0] / "export"
    best = torch.load(finished[0] / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    exported = load_file(export / "model.safetensors")
    for name, weight in exported.items():
        assert torch.equal(weight, best[f"model.{name}"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(export), AutoTokenizer.from_pretrained(export)
    text = pipeline("text-generation", model=model, tokenizer=tokenizer)("The ", max_new_tokens=4)
    assert text[0]["generated_text"].startswith("The ")
    assert "pipeline_tag: text-generation" in (export / "README.md").read_text()


def test_tensorboard_has_curves_samples_and_hyperparameters_with_final_metrics(finished):
    events = EventAccumulator(str(finished[0])).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "train/grad_norm", "train/tokens_per_second", "lr"} <= scalars
    assert {"val/loss", "val/perplexity", "val/bits_per_byte"} <= scalars
    steps = [event.step for event in events.Scalars("val/loss")]
    assert (steps[0], steps[-1]) == (0, 20)
    assert steps == sorted(set(steps))
    assert events.Scalars("train/loss")[-1].step == 20
    final = events.Scalars("val/best_loss")[-1].value
    assert final == pytest.approx(result_of(finished[0])["metrics"]["after"]["val/loss"])
    assert "samples/text_summary" in events.Tags()["tensors"]
    assert any(tag.startswith("_hparams_") for tag in events.summary_metadata)
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    shown = hyperparameters(events)
    assert {"optim.lr", "trainer.max_steps", "data.block_size", "model.checkpoint", "seed"} <= set(shown)
    assert shown["optim.lr"] == yaml.safe_load((finished[0] / "config.yaml").read_text())["optim"]["lr"]
    assert len(shown) < 25
    assert {"train/loss", "val/loss", "lr"} <= charts(events) <= scalars


def test_the_same_name_again_reports_without_training(command, small, finished):
    before = result_of(finished[0])
    again = command("train.py", "name=finished", *small)
    assert again.returncode == 0
    assert "perplexity" in again.stdout
    assert result_of(finished[0]) == before


def test_the_same_name_with_another_config_is_refused_with_the_difference(command, small, finished):
    before = result_of(finished[0])
    refused = command("train.py", "name=finished", *small, "data.batch_size=4")
    assert refused.returncode == 2
    assert "data.batch_size: 8 -> 4" in refused.stderr
    assert result_of(finished[0]) == before


def test_other_data_under_the_same_name_is_refused(command, small, corpus, finished, tmp_path):
    """The same path, another text: what counts is what the documents say."""
    text = corpus.read_text()
    try:
        corpus.write_text(text + '{"text": "One document more, which nobody has seen."}\n')
        refused = command("train.py", "name=finished", *small)
    finally:
        corpus.write_text(text)
    assert refused.returncode == 2
    assert "data (SHA-256)" in refused.stderr


def test_a_run_that_never_began_does_not_keep_its_name(command, small):
    rest = [argument for argument in small if not argument.startswith(("trainer=", "trainer.max_steps"))]
    wrong = command("train.py", "name=again", *rest, "trainer=cpu", "trainer.max_steps=1", "trainer.strategy=foo")
    assert wrong.returncode == 2, wrong.stderr
    assert "the trainer group does not fit" in wrong.stderr
    right = command("train.py", "name=again", *rest, "trainer=cpu", "trainer.max_steps=1")
    assert right.returncode == 0, right.stderr
    result = result_of(command.home / "logs" / "runs" / "again")
    assert result["status"] == "finished"
    assert "error" not in result


def test_early_stopping_ends_a_run_that_gets_no_better(command, small):
    rest = [argument for argument in small if not argument.startswith(("optim.lr", "trainer.max_steps"))]
    settings = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "optim.lr=3",
        "trainer.max_steps=400",
    ]
    done = command("train.py", "name=early", *rest, *settings, "trainer.val_check_interval=4")
    assert done.returncode == 0, done.stderr
    result = result_of(command.home / "logs" / "runs" / "early")
    assert result["status"] == "finished"
    assert result["steps"] < 100
    assert result["metrics"]["after"]["val/loss"] <= result["metrics"]["last"]["val/loss"]


def test_a_setting_that_cannot_move_the_numbers_may_differ(command, small, finished):
    again = command("train.py", "name=finished", *small, "trainer.log_every_n_steps=1")
    assert again.returncode == 0


def test_fresh_moves_the_old_run_aside(command, small):
    folder = command.home / "logs" / "runs" / "renewed"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"status": "failed"}')
    done = command("train.py", "name=renewed", "fresh=true", *small, "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    assert result_of(folder)["status"] == "finished"
    (aside,) = folder.parent.glob("renewed.before-*")
    assert (aside / "result.json").read_text() == '{"status": "failed"}'


def test_a_killed_run_goes_on_from_its_last_checkpoint(command, python, small, tmp_path):
    few = [argument for argument in small if "samples" not in argument]
    arguments = [*few, "name=killed", "checkpoint.every_steps=4", "trainer.max_steps=200"]
    arguments += ["trainer.val_check_interval=100", "~callbacks.samples"]
    folder = tmp_path / "logs" / "runs" / "killed"
    process = subprocess.Popen(
        [python, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert result_of(folder)["status"] == "running"
    before = result_of(folder)["metrics"]["before"]
    done_steps = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 4 <= done_steps < 200
    again = command("train.py", *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resumable" not in again.stdout + again.stderr, "Lightning knows nothing of how this program goes on"
    result = result_of(folder)
    assert result["status"] == "finished"
    assert result["steps"] == 200
    assert result["metrics"]["before"] == before
    steps = [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]
    assert max(steps) == 200


def test_a_sweep_trains_each_and_names_the_folders_by_what_varied(command, small):
    swept = [argument for argument in small if not argument.startswith(("optim.lr", "trainer.max_steps"))]
    done = command("train.py", "-m", "name=rates", *swept, "trainer.max_steps=2", "optim.lr=1e-5,5e-5,1e-4")
    assert done.returncode == 0, done.stderr
    results = sorted((command.home / "logs" / "sweeps" / "rates").glob("*/result.json"))
    assert len(results) == 3
    rates = {json.loads(file.read_text())["status"] for file in results}
    assert rates == {"finished"}
    assert {file.parent.name for file in results} == {"optim.lr=1e-05", "optim.lr=5e-05", "optim.lr=0.0001"}


def hub_cache(root: Path, name: str, model: Path) -> Path:
    """A cache laid out as the Hub's own client does: refs, and a snapshot of the revision."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return root


def test_gpt2_is_loaded_from_the_hubs_cache_without_a_network(command, small, small_model, tmp_path):
    cache = hub_cache(tmp_path / "hub", "openai-community/gpt2", small_model)
    rest = [argument for argument in small if not argument.startswith(("model.checkpoint", "data.path", "optim.lr"))]
    done = command(
        "train.py",
        "model=gpt2",
        "data=domain",
        "name=hub",
        *rest,
        "trainer.max_steps=2",
        "trainer.limit_val_batches=2",
        HF_HUB_OFFLINE="1",
        HF_HUB_CACHE=str(cache),
    )
    assert done.returncode == 0, done.stderr
    result = result_of(command.home / "logs" / "runs" / "hub")
    assert result["weights"]["checkpoint"] == "openai-community/gpt2"
    assert result["weights"]["found"] == "the Hub's cache"
    assert "lr 5e-05" in done.stdout


@pytest.mark.slow
def test_two_processes_train_as_one(command, small):
    """DDP on two CPU processes: every document once, the same loss as one process on the same rows per step."""
    rest = [argument for argument in small if not argument.startswith("trainer=")]
    one = command("train.py", "name=one", *rest, "trainer=cpu", "model.dropout=0", "trainer.precision=32")
    two = command(
        "train.py",
        "name=two",
        *rest,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.val_check_interval=4",
        "trainer.max_steps=10",
        "model.dropout=0",
        "trainer.precision=32",
    )
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    runs = command.home / "logs" / "runs"
    first, second = result_of(runs / "one"), result_of(runs / "two")
    assert second["status"] == "finished"
    before = "before"
    assert second["metrics"][before]["val/loss"] == pytest.approx(first["metrics"][before]["val/loss"], rel=1e-6)
    assert second["steps"] == 10
    # Ten steps of two micro-batches of eight rows see as many rows as twenty of one.
    assert second["tokens_trained"] == pytest.approx(first["tokens_trained"], rel=0.2)
    written = {path.name for path in (runs / "two" / "checkpoints").iterdir()}
    assert written == {name + end for name in ("best.ckpt", "last.ckpt") for end in ("", ".sha256")}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_lightning_starts_the_processes_in_an_interactive_job_of_slurm(command, small):
    """There the variables of SLURM are those of the shell, the same for both processes."""
    shell = {"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5"}
    rest = [argument for argument in small if not argument.startswith("trainer=")]
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2")
    done = command("train.py", "name=interactive", *rest, *two, **shell)
    assert done.returncode == 0, done.stderr
    assert result_of(command.home / "logs" / "runs" / "interactive")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_embedded_model_learns_the_embedded_text_and_beats_random_weights(command):
    """What `make train` promises: validation perplexity falls to three quarters or less."""
    settings = ["trainer=cpu", "trainer.max_steps=20", "trainer.limit_val_batches=8", "~callbacks.samples"]
    runs = command.home / "logs" / "runs"
    for name, init in (("tuned", "pretrained"), ("scratch", "random")):
        done = command("train.py", f"name={name}", f"model.init={init}", *settings, OMP_NUM_THREADS=str(os.cpu_count()))
        assert done.returncode == 0, done.stderr
    tuned, scratch = (result_of(runs / name)["metrics"] for name in ("tuned", "scratch"))
    assert tuned["after"]["val/perplexity"] <= 0.75 * tuned["before"]["val/perplexity"]
    assert tuned["after"]["val/perplexity"] < 0.75 * scratch["after"]["val/perplexity"]
