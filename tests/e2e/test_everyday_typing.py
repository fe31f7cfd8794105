"""Values as a person types them into a shell: paths, names, separators, spaces, lists."""

from everyday import (
    SHORT,
    classes_of,
    config_in,
    config_of,
    figure,
    notes,
    paragraph,
    result_in,
    result_of,
    review,
    sentence,
    trials_of,
    works,
    write,
    write_csv,
    write_jsonl,
)
from families import save_family


def test_a_folder_below_home_is_typed_with_a_tilde(shell, small_model):
    for number in range(40):
        write(shell.home / "notes" / f"day{number:02}.txt", paragraph(number))
    works(shell, f"python train.py model.checkpoint={small_model} data.path=~/notes name=one {SHORT}")
    assert result_of(shell.home, "one")["data"]["documents_read"] == 40


def test_a_folder_below_home_is_typed_with_a_tilde_for_a_sweep(shell, small_model):
    for number in range(40):
        write(shell.home / "notes" / f"day{number:02}.txt", paragraph(number))
    works(
        shell,
        f"python train.py -m model.checkpoint={small_model} data.path=~/notes name=two optim.lr=1e-3,2e-3 {SHORT}",
    )
    read = [result_in(trial)["data"]["documents_read"] for trial in trials_of(shell.home, "two")]
    assert read == [40, 40]


def test_labels_in_one_cell_are_parted_by_a_semicolon(shell, small_model):
    rows = [(review(each), "cold;far" if each % 2 else "warm;local" if each % 4 else "warm") for each in range(160)]
    write_csv(shell.home / "several.csv", "text,label", rows)
    line = f"python train.py model.checkpoint={small_model} data=sentiment data.path=several.csv name=one {SHORT}"
    works(shell, f'{line} data.label_separator=";"')
    assert classes_of(shell.home, "one") == {"warm", "local", "cold", "far"}


def test_a_file_and_a_run_are_named_in_ones_own_language(shell, small_model):
    text = "\n\n".join(f"{each}日目。港の灯台守は古い地図を広げた。{sentence(each)}" for each in range(40))
    write(shell.home / "日記.txt", text)
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data.path=日記.txt name=日記 paths.logs=work/logs {SHORT}",
    )
    assert result_of(shell.home / "work", "日記")["data"]["documents_read"] == 40


def test_a_run_is_named_by_a_date(shell, small_model):
    write(shell.home / "notes.txt", notes())
    works(shell, f"python train.py model.checkpoint={small_model} data.path=notes.txt name=2026_11_26 {SHORT}")
    assert [folder.name for folder in (shell.home / "logs" / "runs").iterdir()] == ["2026_11_26"]
    assert config_of(shell.home, "2026_11_26")["name"] == "2026_11_26"
    printed = works(shell, 'python scripts/generate.py run=2026_11_26 prompt="The baker" max_new_tokens=4')
    assert printed.startswith("The baker")


def test_a_prefix_ends_in_a_space(shell, tmp_path):
    model = save_family("t5", tmp_path / "t5")
    rows = [{"source": f"{each} {sentence(each)}", "target": f"Note {each}."} for each in range(80)]
    write_jsonl(shell.home / "pairs.jsonl", rows)
    works(
        shell,
        f"python train.py data=summaries data.path=pairs.jsonl model.checkpoint={model} "
        f'data.prefix="paraphrase " data.target_size=16 task.generate_examples=2 name=one {SHORT}',
    )
    assert config_of(shell.home, "one")["data"]["prefix"] == "paraphrase "


def test_a_script_measures_several_files(shell):
    write(shell.home / "notes.txt", notes())
    write(shell.home / "more.txt", "\n\n".join(paragraph(each) for each in range(500, 530)))
    line = (
        "python scripts/evaluate.py model.checkpoint=embedded:gpt2_tiny data.block_size=64 data.unit=paragraph "
        "trainer.accelerator=cpu"
    )
    both = works(shell, f'{line} "data.path=[notes.txt,more.txt]"')
    assert figure(both, "documents") == 90
    alone = [figure(works(shell, f"{line} data.path={name}"), "predicted tokens") for name in ("notes.txt", "more.txt")]
    assert figure(both, "predicted tokens") == sum(alone)


def test_a_search_tries_null(shell, small_model):
    write(shell.home / "notes.txt", notes())
    works(
        shell,
        f"python train.py -m name=one sweep=random sweep.n_trials=2 optim.lr=1e-3 model.dropout=null,0.1 "
        f"model.checkpoint={small_model} data.path=notes.txt {SHORT}",
    )
    tried = [config_in(trial)["model"]["dropout"] for trial in trials_of(shell.home, "one")]
    assert len(tried) == 2
    assert set(tried) <= {None, 0.1}


def test_a_grid_is_of_lists_and_the_leaderboard_names_them(shell, small_model):
    write(shell.home / "notes.txt", notes())
    works(
        shell,
        f"python train.py -m name=one 'optim.betas=[0.9,0.95],[0.9,0.999]' launcher.n_jobs=2 "
        f"model.checkpoint={small_model} data.path=notes.txt {SHORT}",
    )
    tried = sorted(config_in(trial)["optim"]["betas"] for trial in trials_of(shell.home, "one"))
    assert tried == [[0.9, 0.95], [0.9, 0.999]]
    printed = works(shell, "python scripts/leaderboard.py name=one")
    assert "[0.9,0.95]" in printed
    assert "[0.9,0.999]" in printed


def test_prompts_come_from_a_windows_editor(shell):
    """A byte order mark, CRLF, and a line separator that came with text from a web page."""
    write(
        shell.home / "prompts.txt",
        "\ufeffThe keeper of the harbour\r\nThe baker of\u2028the old market\r\n".encode(),
    )
    printed = works(
        shell,
        "python scripts/generate.py model.checkpoint=embedded:gpt2_tiny prompts=prompts.txt max_new_tokens=6 "
        "temperature=0",
    )
    first, second = printed.split("\n---\n")
    assert first.startswith("The keeper of the harbour")
    assert second.startswith("The baker of\u2028the old market")
