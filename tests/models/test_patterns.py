import pytest

from domaintune.errors import UsageError
from domaintune.models.patterns import matching

NAMES = [f"bert.encoder.layer.{layer}.{part}" for layer in range(12) for part in ("query.weight", "query.bias")]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("*", 24), ("*.bias", 12), ("bert.encoder.layer.[0-3].*", 8), (NAMES[5], 1), ("*.layer.1?.query.weight", 2)],
)
def test_a_pattern_matches_whole_names_and_a_star_crosses_dots(pattern: str, count: int) -> None:
    assert len(matching("model.freeze", [pattern], NAMES)) == count


def test_what_any_pattern_matches_is_found() -> None:
    assert matching("x", [NAMES[0], NAMES[3]], NAMES) == {NAMES[0], NAMES[3]}


@pytest.mark.parametrize("pattern", ["bert.encodr.layer.3.*", "bert.encoder.layer.3.query.weigth"])
def test_a_pattern_that_matches_nothing_is_told_with_the_nearest_names(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"model\.freeze: .* matches nothing; nearest are bert\.encoder\.layer\.3"):
        matching("model.freeze", ["*.bias", pattern], NAMES)


def test_case_counts() -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        matching("x", ["BERT.*"], NAMES)
