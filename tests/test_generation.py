from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from transformers import GenerationConfig, GPT2LMHeadModel
from transformers.generation import BaseStreamer

from domaintune.config import UsageError
from domaintune.generation import Sampling, answers, continue_text

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> GPT2LMHeadModel:
    """With dropout, so that forgetting eval mode shows, and weights large enough for the prompt to matter."""
    made = tiny.gpt2(vocab_size=len(tokenizer), n_positions=24, resid_pdrop=0.5, embd_pdrop=0.5)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.train()


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
    alone = [text for prompt in prompts for text in answers(model, tokenizer, [prompt], 8, 1)]
    assert len(set(alone)) > 3, "they differ from prompt to prompt"
    assert answers(model, tokenizer, prompts, 8, 3) == answers(model, tokenizer, prompts, 8, 5) == alone


def test_what_a_checkpoint_would_have_written_otherwise_does_not_matter(tokenizer: Any) -> None:
    model, prompt = tiny.gpt2(vocab_size=len(tokenizer)), torch.tensor(ids(tokenizer, PROMPT))
    wanted = answers(model, tokenizer, [prompt], 6, 1)
    own = GenerationConfig(suppress_tokens=ids(tokenizer, wanted[0]), num_beams=2)
    model.generation_config = own
    assert answers(model, tokenizer, [prompt], 6, 1) == wanted
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
