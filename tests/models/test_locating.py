import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
from huggingface_hub import constants

from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.models.locating import ASSETS, Checkpoint, locate, marks_of

NAME = "someone/some-model"
SHAPE = {"config.json": b"{}", "tokenizer.json": b"{}"}
WHOLE = {**SHAPE, "model.safetensors": b"weights"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and an empty folder to stand in."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "hub"


def folder_with(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def problem(name: str, **settings: bool) -> str:
    with pytest.raises(UsageError) as caught:
        locate(name, **settings)
    return str(caught.value)


def with_config(folder: Path, config: Any) -> Checkpoint:
    return Checkpoint("name", folder_with(folder, {"config.json": json.dumps(config).encode()}), "local folder")


def test_an_embedded_checkpoint_lies_in_the_package() -> None:
    checkpoint = locate("embedded:gpt2_tiny", needs_weights=False)
    assert (checkpoint.folder, checkpoint.found) == (ASSETS / "gpt2_tiny", "embedded")


def test_an_unknown_embedded_checkpoint_is_told_with_those_there_are() -> None:
    assert "embedded:gpt2_tiny" in problem("embedded:gpt2_tinny").split(";")[1]


def test_a_local_folder_is_taken(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", WHOLE)
    assert locate(str(folder)) == Checkpoint(str(folder), folder, "local folder")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path / "model", WHOLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model").folder == folder


def test_the_hubs_cache_is_taken_without_asking_the_hub(cache: Path) -> None:
    folder = tiny.hub_cache(cache, NAME, WHOLE)
    assert locate(NAME) == Checkpoint(NAME, folder, "the Hub's cache")


def test_a_local_folder_comes_before_the_hubs_cache(cache: Path) -> None:
    tiny.hub_cache(cache, NAME, WHOLE)
    folder_with(Path(NAME), WHOLE)
    assert locate(NAME).found == "local folder"


def test_what_is_not_found_offline_is_told_with_what_was_tried_and_three_ways_out(cache: Path) -> None:
    message = problem(NAME)
    assert message.startswith(f"model.checkpoint={NAME} was not found")
    for tried in (f"no folder {NAME} here", f"not in the Hub's cache ({cache})", "HF_HUB_OFFLINE is set"):
        assert tried in message
    assert message.count("\n  - ") == 3
    for way_out in (f"hf download {NAME}", "model.checkpoint=FOLDER", "model=gpt2_tiny"):
        assert way_out in message


@pytest.mark.parametrize("files", [{"config.json": b"{}"}, {"model.safetensors": b"weights"}])
def test_a_part_in_the_hubs_cache_is_not_enough(cache: Path, files: dict[str, bytes]) -> None:
    tiny.hub_cache(cache, NAME, files)
    assert "was not found" in problem(NAME)


def test_another_model_is_never_put_in_its_place(cache: Path) -> None:
    tiny.hub_cache(cache, NAME, WHOLE)
    assert "was not found" in problem(f"{NAME}-large")


@pytest.mark.parametrize("name", ["/no/such/folder", "./model", "../model", "~/no-such-model", "a/b/c"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(cache: Path, name: str) -> None:
    assert f"model.checkpoint={name}: no such folder (from {cache.parent / 'here'})" in problem(name)


def test_what_is_no_valid_id_is_told(cache: Path) -> None:
    assert "neither a folder here nor a valid Hub id" in problem("some model")


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused(tmp_path: Path, pickled: str) -> None:
    folder = folder_with(tmp_path / "model", {**SHAPE, pickled: b"weights"})
    assert "holds no .safetensors weights; pickled weights" in problem(str(folder))


def test_shape_and_tokenizer_alone_need_no_weights(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", SHAPE)
    assert locate(str(folder), needs_weights=False).folder == folder


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", {"model.safetensors": b"weights"})
    assert "holds no config.json" in problem(str(folder))


def test_a_damaged_config_is_told(tmp_path: Path) -> None:
    checkpoint = Checkpoint("name", folder_with(tmp_path / "model", {"config.json": b"{"}), "local folder")
    with pytest.raises(UsageError, match=r"config\.json"):
        _ = checkpoint.max_positions


def test_max_positions_of_gpt2_and_llama(tmp_path: Path) -> None:
    tiny.gpt2(n_positions=48).config.save_pretrained(tmp_path / "gpt2")
    tiny.llama(max_position_embeddings=80).config.save_pretrained(tmp_path / "llama")
    assert Checkpoint("gpt2", tmp_path / "gpt2", "").max_positions == 48
    assert Checkpoint("llama", tmp_path / "llama", "").max_positions == 80


def test_max_positions_of_roberta_leave_out_those_that_are_never_used(tmp_path: Path) -> None:
    assert (
        with_config(
            tmp_path / "model", {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
        ).max_positions
        == 512
    )


def test_a_model_may_name_no_limit(tmp_path: Path) -> None:
    assert with_config(tmp_path / "model", {"n_positions": None}).max_positions is None


def test_the_weights_hash_covers_every_shard_and_nothing_else(tmp_path: Path) -> None:
    def hash_of(number: int, **shards: bytes) -> str | None:
        files = {f"{name}.safetensors": content for name, content in shards.items()}
        note = {"note.txt": str(number).encode()}
        return Checkpoint("x", folder_with(tmp_path / str(number), {**files, **note}), "").weights_hash()

    assert hash_of(1, a=b"1", b=b"2") == hash_of(2, a=b"1", b=b"2")
    assert hash_of(3, a=b"1", b=b"2") != hash_of(4, a=b"1", b=b"3")
    assert hash_of(5) is None


GATED = "someone/gated-model"
HUB_FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "merges.txt": b"",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "onnx/model.safetensors": b"another framework's",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download needs: it knows two models, one of which it hands out to nobody."""

    def do_GET(self) -> None:
        place, files = self.path.split("?")[0].strip("/"), HUB_FILES.items()
        model = next((name for name in (NAME, GATED) if f"{name}/" in f"{place}/"), None)
        if model is None:
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in place:
            tree = [{"type": "file", "path": file, "size": len(content), "oid": file} for file, content in files]
            self.answer(json.dumps(tree).encode())
        elif place.startswith("api/"):
            siblings = [{"rfilename": file} for file in HUB_FILES]
            self.answer(json.dumps({"id": model, "sha": COMMIT, "siblings": siblings}).encode())
        elif model == GATED:
            self.answer(b"", 403, {"X-Error-Code": "GatedRepo"})
        else:
            self.answer(HUB_FILES[place.split(f"{COMMIT}/")[-1]])

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        common = {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
        for name, value in {**common, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a Hub on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def locate_online(name: str, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the Hub's client reads its address once."""
    program = (
        "import sys\nfrom domaintune.models.locating import locate, UsageError\n"
        "try:\n    found = locate(sys.argv[1])\n    print(found.found, found.folder, sep='\\n')\n"
        "except UsageError as error:\n    print(error)\n    sys.exit(2)"
    )
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    settings |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", program, name],
        env={**os.environ, **settings},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_from_the_hub_come_configuration_vocabulary_and_safetensors_only(hub: str, tmp_path: Path) -> None:
    found, folder = locate_online(NAME, hub, tmp_path).stdout.splitlines()
    files = {file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if not file.is_dir()}
    assert found == "the Hub"
    assert files == {"config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"


def test_what_the_hub_fetched_is_in_its_cache_from_then_on(hub: str, tmp_path: Path) -> None:
    locate_online(NAME, hub, tmp_path)
    assert locate_online(NAME, "http://127.0.0.1:1", tmp_path).stdout.startswith("the Hub's cache\n")


def test_a_snapshot_in_the_cache_without_a_tokenizer_is_completed_from_the_hub(hub: str, tmp_path: Path) -> None:
    """It is what stays behind where only the model was ever opened."""
    folder = tiny.hub_cache(tmp_path / "hub", NAME, WHOLE)
    run = locate_online(NAME, hub, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / "tokenizer.json").exists()


def test_a_model_that_the_hub_does_not_know_is_told(hub: str, tmp_path: Path) -> None:
    run = locate_online("someone/unknown", hub, tmp_path)
    assert run.returncode == 2
    assert "the Hub has no model of this id, or it is private" in run.stdout


def test_a_model_whose_files_the_hub_refuses_is_told(hub: str, tmp_path: Path) -> None:
    """Gated models show what they are to everybody, and their files only to those who have agreed to a licence."""
    run = locate_online(GATED, hub, tmp_path)
    assert run.returncode == 2, run.stderr
    assert f"model.checkpoint={GATED} was not found" in run.stdout


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path) -> None:
    run = locate_online(NAME, "http://127.0.0.1:1", tmp_path)
    assert run.returncode == 2
    assert "no answer from the Hub" in run.stdout


def with_files(folder: Path, **files: Any) -> Checkpoint:
    content = {"config": {}, **files}
    return Checkpoint(
        "name",
        folder_with(folder / "model", {f"{name}.json": json.dumps(each).encode() for name, each in content.items()}),
        "local folder",
    )


ADDED = [{"id": 9, "content": "<end>"}]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "<end>"}, "config": {"eos_token_id": 4}},
        {"tokenizer_config": {"eos_token": {"content": "<end>", "lstrip": False}}},
        {"special_tokens_map": {"eos_token": "<end>"}, "tokenizer_config": {"eos_token": None}},
        {"config": {"eos_token_id": 9}, "tokenizer": {"model": {"vocab": {"a": 1}}, "added_tokens": ADDED}},
        {"config": {"eos_token_id": 2}, "tokenizer": {"model": {"vocab": {"a": 1, "<end>": 2}}}},
        {"config": {"eos_token_id": 2}, "vocab": {"a": 1, "<end>": 2}},
    ],
)
def test_the_end_of_text_token_is_known_without_opening_the_tokenizer(tmp_path: Path, files: dict[str, Any]) -> None:
    assert with_files(tmp_path, **files).special_token("eos_token") == "<end>"


def test_a_special_token_that_nobody_names_is_none(tmp_path: Path) -> None:
    assert with_files(tmp_path, tokenizer={}).special_token("eos_token") is None


@pytest.mark.parametrize(
    ("tokenizer", "tokens"),
    [
        ({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": ADDED}, 10),
        ({"model": {"vocab": [["a", 0.0], ["b", -1.0]]}}, 2),
        ({}, None),
    ],
)
def test_tokens_are_counted_without_opening_the_tokenizer(tmp_path: Path, tokenizer: Any, tokens: int | None) -> None:
    assert with_files(tmp_path, tokenizer=tokenizer).tokens == tokens


def test_the_embedded_checkpoint_has_an_embedding_for_each_token() -> None:
    given = locate("embedded:gpt2_tiny")
    assert given.tokens == given.embeddings == 8192
    assert given.special_token("eos_token") == "<|endoftext|>"
    assert given.place() == str(ASSETS / "gpt2_tiny")
    assert Checkpoint("some/name", Path("x"), "the Hub's cache").place() == "some/name"


def test_marks_are_those_of_the_checkpoints_tokenizer(tmp_path: Path) -> None:
    shape = {"config": b"{}", "tokenizer": b"{}"}
    config = Config()
    config.model.checkpoint, config.paths.cache = "embedded:gpt2_tiny", "cache"
    assert marks_of(config) == ()
    config.data.marks = "end"
    assert marks_of(config) == ("<|endoftext|>", "<|startoftext|>")
    folder = folder_with(tmp_path / "model", {f"{name}.json": content for name, content in shape.items()})
    config.model.checkpoint = str(folder)
    with pytest.raises(UsageError, match=r"data\.marks=end: the tokenizer of .* has no end-of-text token"):
        marks_of(config)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    assert marks_of(config) == ("</s>", "<s>", "<|startoftext|>")
