import tiny
import torch

from domaintune.data.collating import IGNORED, Window, pack, pad


def window(*ids: int, text_bytes: int = 0) -> Window:
    return tiny.window(torch.tensor(ids), text_bytes)


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    batch = pad([window(5, 6), window(7, 8, 9, 10), window(11, 12, 13)], pad_token_id=1)
    assert batch["input_ids"].tolist() == [[5, 6, 1, 1], [7, 8, 9, 10], [11, 12, 13, 1]]


def test_labels_stand_under_their_tokens_but_the_first_and_the_padding() -> None:
    batch = pad([window(5, 6), window(7, 8, 9, 10)], pad_token_id=1)
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, IGNORED], [IGNORED, 8, 9, 10]]


def test_a_real_token_that_equals_the_padding_is_predicted() -> None:
    batch = pad([window(1, 1, 5, 1), window(6, 1)], pad_token_id=1)
    assert batch["labels"].tolist() == [[IGNORED, 1, 5, 1], [IGNORED, 1, IGNORED, IGNORED]]


def test_context_in_the_middle_has_no_label() -> None:
    asked = window(5, 6, 7, 8)
    asked["labels"][1:3] = IGNORED
    for batch in (pad([asked], pad_token_id=1), pack([[asked]], block_size=6, pad_token_id=1)):
        assert batch["labels"][0, :4].tolist() == [IGNORED, IGNORED, IGNORED, 8]


def test_packed_rows_know_where_windows_and_padding_begin() -> None:
    rows = [[window(5, 6), window(7, 8, 9)], [window(1, 2, 3, 4, 5, 6)]]
    batch = pack(rows, block_size=6, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]
    assert batch["cu_seqlens"].tolist() == [0, 2, 5, 6, 12]
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, 8, 9, IGNORED], [IGNORED, 2, 3, 4, 5, 6]]


def test_the_bytes_of_a_batch_are_those_of_its_windows() -> None:
    assert pad([window(5, 6, text_bytes=3), window(7, text_bytes=4)], pad_token_id=0)["bytes"] == 7


def test_ignored_is_the_label_that_pytorch_ignores() -> None:
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED


def test_what_is_predicted_is_found_for_the_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    windows = [tiny.window(torch.randint(90, (length,), generator=draw), length) for length in (200, 3, 150)]
    windows[0]["labels"][50:100] = IGNORED
    for batch in (pad(windows, 0), pack([windows[:2], windows[2:]], 256, 0)):
        count = 149 + 2 + 149
        assert batch["tokens"] == count == int((batch["labels"] != IGNORED).sum())
        states, targets = batch["states"], batch["targets"]
        assert len(states) == len(targets) == 512, "rounded up"
        assert torch.equal(batch["labels"].flatten()[states[:count] + 1], targets[:count])
        assert (targets[count:] == IGNORED).all()
        assert (targets[:count] != IGNORED).all()


def test_no_more_is_predicted_than_a_batch_has_tokens() -> None:
    batch = pad([tiny.window(torch.arange(5), 5), tiny.window(torch.arange(3), 3)], 0)
    assert (batch["tokens"], len(batch["targets"])) == (6, 10)
