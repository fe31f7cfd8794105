"""The account of rows that can't be used."""

from domaintune.data.left_out import NAMED, LeftOutRows, counted, explained, joined


def test_rows_are_counted_under_their_reason_with_the_first_places() -> None:
    rows: LeftOutRows = joined({}, "no label", 1, ["a.csv:12"], "nothing stands in 'label'")
    more = joined(rows, "no label", 7, [f"a.csv:{line}" for line in range(40, 47)], "something else")
    both = joined(more, "blank", 1, ["a.csv:3"], "nothing stands in it")
    assert rows["no label"]["rows"] == 1, "not changed"
    assert (both["no label"]["rows"], len(both["no label"]["places"])) == (8, NAMED)
    places = "a.csv:12, a.csv:40, a.csv:41, a.csv:42, a.csv:43, ..."
    assert counted(both) == f"no label 8 ({places}), blank 1 (a.csv:3)"
    assert explained(both) == (
        f"no label 8 ({places}): nothing stands in 'label'; blank 1 (a.csv:3): nothing stands in it"
    )
