"""What is typed arrives as typed: through Hydra, in its sweeps and in the scripts alike."""

import random
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from domaintune.cli.arguments import typed
from domaintune.config.checks import check
from domaintune.config.overrides import explain, kind_of, read_text, to_hydra
from domaintune.config.schema import Config, DataConfig
from domaintune.errors import UsageError

TEXTS = [
    *(
        "~/notes",
        "~",
        "notes~",
        "a~b/x.txt",
        "日記.txt",
        "Müller & Söhne #2.txt",
        "it's.txt",
        "a=b.txt",
        "book (1).txt",
    ),
    *("a{b}.txt", "a,b.txt", "[draft] plan.txt", "{x}.txt", "100%.txt", "$cost.txt", "my notes.txt", "C:\\notes\\"),
    *("2026_11_26", "1.10", "1e3", "1_000", "007", "2024", "true", "False", "nan", "-inf", ".5", "+1", "0x10"),
    *(";", ",", "#", "&", "^", "<sep>", "|", " ", " | ", "\t", "paraphrase ", "summarize: ", " two  spaces ", "a\nb"),
    *('say "hi".txt', "'", '"', "a'b\"c", "\\", "\\'", '\\"', "x\\\\", "(", "]", "}{", "a]b", "[a],b", "choice(a,b)"),
    *(
        "interval(1,2)",
        "range(3)",
        "~null",
        "nullable",
        "*.txt",
        "**/*.md",
        "a:b",
        "@x",
        "!",
        "`ls`",
        "😀.txt",
        "ملاحظات.txt",
    ),
]


def arrives(key: str, value: str, sweeps: bool = False) -> Any:
    """What Hydra makes of `key=value` on a command line."""
    (override, *_) = to_hydra([f"{key}={value}", *["-m"] * sweeps])
    return OverridesParser.create().parse_override(override).value()


def varies(key: str, value: str) -> list[Any]:
    """The values of `key=value` under -m, each as the process of its trial gets it."""
    override = OverridesParser.create().parse_override(to_hydra([f"{key}={value}", "-m"])[0])
    assert override.is_sweep_override()
    return [arrives(key, each) for each in override.sweep_string_iterator()]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_was_typed(text):
    assert arrives("data.prefix", text) == text
    assert read_text(text, "text") == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_quotes_is_its_inside(text):
    for quote in "'\"":
        escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}") if quote in text or "\\" in text else text
        read = read_text(f"{quote}{escaped}{quote}", "text")
        assert read == OverridesParser.create().parse_override(f"x={quote}{escaped}{quote}").value()
        assert arrives("name", f"{quote}{escaped}{quote}") == read
    assert arrives("data.path", '"null"') == "null"


def test_any_text_arrives_through_a_trial_of_a_sweep():
    draw = random.Random(0)
    signs = "ab ,;'\"\\()[]{}=:~#&$%^|<>!?*+-_./@`0129日é\t"
    for _ in range(400):
        text = "".join(draw.choice(signs) for _ in range(draw.randint(1, 12)))
        quoted = read_text(text, "text") != text or text.strip().lower() == "null"
        if quoted or "${" in text:
            continue
        assert arrives("data.prefix", text) == text
        (again,) = to_hydra(to_hydra([f"data.prefix={text}"]))  # a trial's own command is rewritten once more
        assert OverridesParser.create().parse_override(again).value() == text


def test_null_and_interpolations_are_hydras():
    assert arrives("data.path", "null") is None
    assert arrives("data.unit", "NULL") is None
    assert arrives("data.path", "${oc.env:HOME}/n.txt") == "${oc.env:HOME}/n.txt"
    assert arrives("name", "run ${seed}") == "run ${seed}"


def test_lists_stand_where_the_schema_takes_them(compose):
    assert arrives("data.path", "[~/notes, 日記.txt,'a,b.txt', 2024_11]") == [
        "~/notes",
        "日記.txt",
        "a,b.txt",
        "2024_11",
    ]
    assert arrives("data.path", "[]") == []
    assert arrives("model.freeze", "[transformer.h.[0-5].*,*.wte.*]") == ["transformer.h.[0-5].*", "*.wte.*"]
    assert arrives("model.freeze", "*.wte.*") == ["*.wte.*"]
    assert arrives("name", "[a,b]") == "[a,b]"
    assert arrives("data.path", "[a].txt") == "[a].txt"
    assert arrives("data.path", "[a] and [b]") == "[a] and [b]"
    (override,) = to_hydra(["data.path=[1_0.txt,~/x]"])
    assert check(compose(override)).data.path[0].endswith("/1_0.txt")


def test_dicts_of_texts_keep_their_texts(compose):
    assert arrives("data.columns", "{label: 2024_11, text: 'a,b'}") == {"label": "2024_11", "text": "a,b"}
    assert arrives("data.columns.label", "1_0") == "1_0"
    wanted = {"客服": "assistant", "顾客": "user"}
    for line in (["data.roles={客服: assistant, 顾客: user}"], ["data.roles.客服=assistant", "data.roles.顾客=user"]):
        (override,) = to_hydra(line)
        for again in (override, *to_hydra([override])):
            assert check(compose("data=instructions", "data.path=x", again)).data.roles == wanted


def test_a_sweep_varies_at_commas_and_choices_alone():
    assert varies("data.path", "~/a b,it's.txt") == ["~/a b", "it's.txt"]
    assert varies("data.path", "[~/a,b],[c]") == [["~/a", "b"], ["c"]]
    assert varies("data.path", "choice(~/a, 日記.txt)") == ["~/a", "日記.txt"]
    assert varies("data.path", '"a,b",c') == ["a,b", "c"]
    assert varies("data.unit", "null,line") == [None, "line"]
    assert varies("data.text_column", "2024_11,1.10") == ["2024_11", "1.10"]
    assert arrives("data.path", "~/one book.txt", sweeps=True) == "~/one book.txt"
    assert arrives("data.prefix", "paraphrase ", sweeps=True) == "paraphrase "
    assert varies("optim.lr", "1e-3,2e-3") == [1e-3, 2e-3]
    assert varies("model.dropout", "null,0.1") == [None, 0.1]


def test_what_has_no_schema_follows_hydra_and_else_is_text():
    assert arrives("callbacks.samples.prompts", "[Müller & Söhne, 'a,b', 12]") == ["Müller & Söhne", "a,b", 12]
    assert arrives("+callbacks.mine._target_", "mine.Own") == "mine.Own"
    assert arrives("+logger.x.name", "#1: ~") == "#1: ~"
    assert arrives("launcher.job", "{partition: gpu, mem_gb: 8}") == {"partition": "gpu", "mem_gb": 8}
    assert arrives("trainer.max_time", "00:08:00:00") == "00:08:00:00"
    assert arrives("optim.betas", "[0.9,0.95]") == [0.9, 0.95]


def test_options_may_stand_anywhere():
    line = ["data.path=x", "--config-dir", "mine", "name=y", "-m", "optim.lr=1,2"]
    assert to_hydra(line) == ["data.path=x", "name=y", "optim.lr=1,2", "--config-dir", "mine", "-m"]


def test_kinds_come_from_the_schema():
    assert kind_of("name") == kind_of("data.unit") == kind_of("paths.logs") == kind_of("data.columns.label") == "text"
    assert kind_of("data.val_path") == "text or texts"
    assert kind_of("peft.targets") == "texts"
    for key in ("optim.lr", "seed", "callbacks.samples.prompts", "trainer.devices", "no.such", "data", "model"):
        assert kind_of(key) is None


def test_scripts_read_values_alike():
    config = Config(data=DataConfig(path="old"))
    typed(
        config,
        {"data.path": "[~/a b,'c,d']", "data.unit": "null", "data.columns.label": "1_0", "data.block_size": "64"},
    )
    data = config.data
    assert (data.path, data.unit, data.columns, data.block_size) == (["~/a b", "c,d"], None, {"label": "1_0"}, 64)
    typed(config, {"data.path": "a,b.txt", "data.prefix": "paraphrase ", "data.val_path": "null"})
    assert (data.path, data.prefix, data.val_path) == ("a,b.txt", "paraphrase ", None)
    with pytest.raises(UsageError, match=r"data\.text_column=null: must be a text"):
        typed(config, {"data.text_column": "null"})
    with pytest.raises(UsageError, match=r"no setting data\.text"):
        typed(config, {"data.text": "x"})


def test_what_cant_be_read_is_told_with_the_sign_and_the_line_to_type():
    assert "KEY=VALUE" in explain("notes.txt")
    assert "'è'" in explain("modèl.init=random")
    assert "model.init" in explain("modèl.init=random")


@pytest.mark.parametrize(
    ("typed", "sign", "line"),
    [
        ("optim.betas=[0.9,0.95", "']'", "'optim.betas=[0.9,0.999]'"),
        ("optim.betas=0.9,0.95]", "']'", "'optim.betas=[0.9,0.999]'"),
        ("data.batch_size=8;", "';'", "'data.batch_size=8'"),
        ("optim.weight_decay=#1", "'#'", "'optim.weight_decay=0.01'"),
        ("fresh=yes&no", "'&'", "'fresh=false'"),
    ],
)
def test_a_number_that_cant_be_read_is_told_with_its_sign_and_a_line_that_can(typed, sign, line):
    with pytest.raises(UsageError) as refused:
        to_hydra([typed])
    for part in (typed, sign, line):
        assert part in str(refused.value)
    assert to_hydra([line.strip("'")]) == [line.strip("'")]


def test_a_decimal_comma_and_a_sweep_without_m_are_told_with_what_to_type():
    for line in ("optim.lr=0,001", "data.batch_size=4,8"):
        with pytest.raises(UsageError, match=f"{line}: several values at a comma are a sweep"):
            to_hydra([line])
        assert to_hydra([line, "-m"]) == [line, "-m"]


@pytest.mark.parametrize(
    "names", [{"1": "user", "2": "assistant"}, {"null": "user", "true": "assistant"}, {"A: x": "user"}]
)
def test_names_that_hydra_takes_for_other_values_are_texts(compose, names):
    pairs = ", ".join(f'"{name}": {role}' for name, role in names.items())
    (override,) = to_hydra([f"data.roles={{{pairs}}}"])
    assert check(compose("data=instructions", "data.path=x", override)).data.roles == names


def test_an_empty_member_of_a_list_is_told_and_one_at_the_end_is_none(compose):
    assert arrives("data.path", "[a.txt,]") == ["a.txt"]
    (override,) = to_hydra(["data.path=[,a.txt]"])
    with pytest.raises(UsageError, match=r"data\.path: a member of the list is empty"):
        check(compose(override))


@pytest.mark.parametrize("name", ["..", ".", "a/../../b", "/tmp/run"])
def test_a_run_lies_in_the_folder_of_runs(compose, name):
    (override,) = to_hydra([f"name={name}"])
    with pytest.raises(UsageError, match=f"name={name}: must name a folder in paths.runs"):
        check(compose(override))


def test_home_is_meant_in_paths(compose, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    overrides = to_hydra(["data.path=[~/a,~/b.txt]", "paths.logs=~/l", "data.val_path=~/v.txt"])
    config = check(compose(*overrides))
    assert config.data.path == ["/home/ann/a", "/home/ann/b.txt"]
    assert (config.data.val_path, config.paths.runs) == ("/home/ann/v.txt", "/home/ann/l/runs")


def test_a_setting_that_is_typed_twice_is_told(capsys):
    assert to_hydra(["data.path=a.txt", "seed=1", "seed=1", "data.path=b.txt"])[-1] == "data.path=b.txt"
    told = capsys.readouterr().err
    assert told == (
        "note: data.path is typed twice: b.txt is taken, and a.txt is not; a list is typed 'data.path=[a.txt,b.txt]'\n"
    )


def test_a_group_has_one_choice():
    with pytest.raises(UsageError, match=r"model has one choice; a sweep has several: .* -m model=gpt2_tiny,gpt2"):
        to_hydra(["model=[gpt2_tiny, gpt2]"])
    assert to_hydra(["callbacks=[default,early_stopping]"]) == ["callbacks=[default,early_stopping]"]


def test_a_sweep_has_no_single_config_to_show():
    with pytest.raises(UsageError, match="leave -m out"):
        to_hydra(["-m", "seed=1,2", "--cfg", "job"])


def test_a_space_behind_a_comma_is_told():
    assert "type no space behind the commas" in explain("data.path=a.txt,")


def test_null_takes_a_group_away(compose):
    assert to_hydra(["logger=null", "callbacks.samples=null"]) == ["logger=none", "callbacks.samples=null"]
    assert to_hydra(["-m", "scheduler=null,cosine"]) == ["scheduler=constant,cosine", "-m"]
    config = check(
        compose(*to_hydra(["logger=null", "callbacks=null", "scheduler=null", "peft=null", "experiment=null"]))
    )
    assert config.logger == config.callbacks == {}
    assert (config.scheduler.name, config.peft.name) == ("constant", "none")


@pytest.mark.parametrize("override", ["trainer=null", "data=Null", "model=null", "callbacks=null,default"])
def test_a_group_that_a_run_needs_is_not_taken_away(override):
    with pytest.raises(UsageError, match="null is no choice here"):
        to_hydra(["-m", override])
