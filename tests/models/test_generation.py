import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from tokenizers import processors
from transformers import GenerationConfig, GPT2LMHeadModel
from transformers.generation import BaseStreamer

from domaintune.config.schema import DataConfig
from domaintune.data.chatting import Chats, stop_ids
from domaintune.data.encoder import Encoder
from domaintune.errors import UsageError
from domaintune.models.generation import (
    Sampling,
    continue_all,
    continue_text,
    encode_prompt,
    encode_question,
    generation_config,
    text_of,
)

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> GPT2LMHeadModel:
    """With dropout, so that forgetting eval mode shows, and weights large enough for the prompt to matter."""
    made = tiny.gpt2(vocab_size=len(tokenizer), n_positions=24, resid_pdrop=0.5, embd_pdrop=0.5)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.train()


def likeliest(max_new_tokens: int) -> Sampling:
    return Sampling(max_new_tokens, temperature=0)


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    one, same, other = (continue_text(model, tokenizer, PROMPT, Sampling(10, 1.0, 1.0, seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_the_global_random_state_has_no_part_in_it(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = continue_text(model, tokenizer, PROMPT, Sampling(10))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert continue_text(model, tokenizer, PROMPT, Sampling(10)) == one


def test_temperature_zero_takes_the_likeliest_token_whatever_the_seed(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    prompt = ids(tokenizer, PROMPT)
    model.eval()
    with torch.no_grad():
        likeliest = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
    model.train()
    texts = {continue_text(model, tokenizer, PROMPT, Sampling(1, temperature=0, seed=seed)) for seed in range(3)}
    assert texts == {tokenizer.decode([likeliest])}


def test_the_prompt_is_not_part_of_the_text(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    assert not continue_text(model, tokenizer, PROMPT, Sampling(5)).startswith(PROMPT)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_it_was(model: GPT2LMHeadModel, tokenizer: Any, training: bool) -> None:
    model.train(training)
    continue_text(model, tokenizer, PROMPT, Sampling(2))
    assert model.training is training
    model.train()


def test_a_long_prompt_loses_its_beginning(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    end = ids(tokenizer, " and a rather long text at its end")
    assert len(end) > 4
    long = tokenizer.decode(ids(tokenizer, "some words before it, " * 20) + end)
    kept = tokenizer.decode(ids(tokenizer, long)[-4:])
    sampling = Sampling(20, temperature=0)  # of 24 positions: 4 are left for the prompt
    assert continue_text(model, tokenizer, long, sampling) == continue_text(model, tokenizer, kept, sampling)


def test_an_empty_prompt_starts_a_document(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    sampling = Sampling(8, temperature=0)
    begun = continue_text(model, tokenizer, "", sampling)
    assert begun == continue_text(model, tokenizer, [tokenizer.eos_token_id], sampling)
    assert begun


class Counting(BaseStreamer):
    """Keeps what it is handed: the prompt, then token by token."""

    def __init__(self) -> None:
        self.handed: list[list[int]] = []

    def put(self, value: torch.Tensor) -> None:
        self.handed.append(value.reshape(-1).tolist())

    def end(self) -> None:
        self.handed.append([])


def test_max_new_tokens_are_written_and_handed_out_one_by_one(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    streamer = Counting()
    text = continue_text(model, tokenizer, PROMPT, Sampling(7, temperature=0), streamer)
    prompt, *written, end = streamer.handed
    assert (prompt, end) == (ids(tokenizer, PROMPT), [])
    assert [len(tokens) for tokens in written] == [1] * 7
    assert tokenizer.decode([token for tokens in written for token in tokens]) == text


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama, tiny.t5], ids=["gpt2", "llama", "t5"])
def test_a_batch_answers_as_each_prompt_alone(tokenizer: Any, make: Callable[..., Any]) -> None:
    model = make(vocab_size=len(tokenizer))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prompts = [
        torch.tensor(ids(tokenizer, PROMPT * 2)[place : place + length]) for place, length in enumerate((3, 1, 7, 3, 5))
    ]
    alone = [text for prompt in prompts for text in continue_all(model, tokenizer, [prompt], likeliest(8), 1)]
    assert len(set(alone)) > 3, "they differ from prompt to prompt"
    for batch_size in (3, 5):
        assert continue_all(model, tokenizer, prompts, likeliest(8), batch_size) == alone


def test_what_a_checkpoint_would_have_written_otherwise_does_not_matter(tokenizer: Any) -> None:
    model, prompt = tiny.gpt2(vocab_size=len(tokenizer)), torch.tensor(ids(tokenizer, PROMPT))
    wanted = continue_all(model, tokenizer, [prompt], likeliest(6), 1)
    own = GenerationConfig(suppress_tokens=ids(tokenizer, wanted[0]), num_beams=2)
    model.generation_config = own
    assert continue_all(model, tokenizer, [prompt], likeliest(6), 1) == wanted
    assert continue_text(model, tokenizer, PROMPT, Sampling(6, temperature=0)) == wanted[0]
    assert model.generation_config is own


def test_a_document_ends_with_the_end_of_text_token(tokenizer: Any) -> None:
    model = tiny.gpt2(vocab_size=len(tokenizer))
    with torch.no_grad():
        model.transformer.ln_f.bias.copy_(100 * model.lm_head.weight[tokenizer.eos_token_id])
    assert continue_text(model, tokenizer, PROMPT, Sampling(20, temperature=0)) == ""


@pytest.mark.parametrize("max_new_tokens", [24, 100])
def test_a_continuation_that_fills_the_models_positions_is_told(
    model: GPT2LMHeadModel, tokenizer: Any, max_new_tokens: int
) -> None:
    with pytest.raises(UsageError, match=f"max_new_tokens={max_new_tokens}: the model has 24 positions; at most 23"):
        continue_text(model, tokenizer, PROMPT, Sampling(max_new_tokens))


def test_one_position_is_enough_for_a_prompt(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    assert continue_text(model, tokenizer, PROMPT, Sampling(23))


def test_the_name_of_a_special_token_in_a_prompt_is_text(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    """As it is in training."""
    prompt = f"a{tokenizer.eos_token}b"
    given = encode_prompt(tokenizer, Encoder(tokenizer), prompt, model)
    assert tokenizer.decode(given) == prompt
    assert tokenizer.eos_token_id not in given


def test_a_source_has_around_it_what_training_puts_there(tokenizer: Any) -> None:
    around = copy.deepcopy(tokenizer)
    around.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    text = ids(tokenizer, "a text")
    assert encode_prompt(around, Encoder(around), "a text", tiny.t5()) == [*text, 0]
    assert encode_prompt(around, Encoder(around), "a<|endoftext|>", tiny.t5()).count(0) == 1
    assert encode_prompt(around, Encoder(around), "a text", tiny.gpt2()) == text


def chatting(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


def test_writing_stops_at_every_sign_that_ends_a_turn(tokenizer: Any) -> None:
    chats = chatting(tokenizer)
    model = tiny.gpt2(vocab_size=len(chats))
    end = chats.convert_tokens_to_ids("<|im_end|>")
    assert stop_ids(tokenizer, model) == [0]
    assert stop_ids(chats, model) == [0, end]
    model.generation_config.eos_token_id = [7, 0, 50256]  # the last one lies beyond its vocabulary
    assert stop_ids(chats, model) == [0, 7, end]
    assert generation_config(chats, Sampling(5), model).eos_token_id == [0, 7, end]
    chats.chat_template = "{{ raise_exception('no') }}"
    assert stop_ids(chats, model) == [0, 7]


@pytest.mark.parametrize("written", ["<|im_end|>", " the"])
def test_a_turn_that_ends_ends_the_text(tokenizer: Any, written: str) -> None:
    chats = chatting(tokenizer)
    model = tiny.gpt2(vocab_size=len(chats))
    stop = chats.convert_tokens_to_ids("<|im_end|>") if "|" in written else ids(tokenizer, written)[0]
    model.generation_config.eos_token_id = [stop]
    with torch.no_grad():
        model.transformer.ln_f.bias.copy_(100 * model.lm_head.weight[stop])
    assert continue_text(model, chats, PROMPT, Sampling(20, temperature=0)) == ""
    assert continue_all(model, chats, [torch.tensor(ids(chats, PROMPT))], likeliest(20), 1) == [""]


def test_an_added_token_that_is_no_special_one_ends_a_turn_as_well(tokenizer: Any) -> None:
    chats = chatting(tokenizer)
    chats.add_tokens(["<end>"])
    chats.chat_template = chats.chat_template.replace("<|im_end|>", "<end>")
    model = tiny.gpt2(vocab_size=len(chats))
    end = chats.convert_tokens_to_ids("<end>")
    assert stop_ids(chats, model) == [0, end]
    assert text_of(chats, [*ids(chats, " the"), end, 5], [0, end]) == " the"
    chats.chat_template = chats.chat_template.replace("<end>", "<over>")
    assert stop_ids(chats, model) == [0]
    assert Chats(chats, Encoder(chats)).behind_answer().strip() == "<over>"


def test_a_question_that_can_not_be_asked_is_told(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="chat=true: the model has no chat template"):
        encode_question(tokenizer, Encoder(tokenizer), "Hello?")
    chats = chatting(tokenizer)
    chats.chat_template = "{{ raise_exception('system first') }}"
    with pytest.raises(UsageError, match="chat=true: the chat template refuses it: system first"):
        encode_question(chats, Encoder(chats), "Hello?")


def test_what_is_written_ends_in_no_half_character(tokenizer: Any) -> None:
    whole = ids(tokenizer, "a 漢字")
    assert len(whole) > 4, "more tokens than characters"
    assert text_of(tokenizer, whole, [0]) == "a 漢字"
    assert text_of(tokenizer, whole[:-1], [0]) == "a 漢"


def test_what_is_streamed_ends_in_no_half_character(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from domaintune.cli.generate import streamer_of

    ids = tokenizer("漢字", add_special_tokens=False)["input_ids"]
    assert len(ids) > 4, "its characters are cut into bytes"
    streamer = streamer_of(tokenizer)
    streamer.put(torch.tensor([[0]]))  # the prompt
    for token in ids[:-1]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert capsys.readouterr().out == "漢\n"


def test_a_source_has_the_prefix_and_the_length_that_it_had_in_training(tokenizer: Any) -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=True))
    data = DataConfig(prefix="summarize: ", block_size=8)
    encoder = Encoder(tokenizer)
    assert encode_prompt(tokenizer, encoder, PROMPT, model) == ids(tokenizer, PROMPT)
    assert encode_prompt(tokenizer, encoder, PROMPT, model, data) == ids(tokenizer, f"summarize: {PROMPT}")[:8]
    model.config.is_encoder_decoder = False
    assert encode_prompt(tokenizer, encoder, PROMPT, model, data) == ids(tokenizer, PROMPT)
