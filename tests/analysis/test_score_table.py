"""A plain table of scores."""

from sgmae_jax.analysis.score_table import score_table


def test_the_column_is_there_only_if_a_row_has_it():
    rows = {"raw": {"knn": 0.5, "probe": 0.25}, "mine": {"knn": 1.0, "probe": 0.5}}
    head, *_ = plain = score_table(rows)
    assert head.split() == ["percent", "kNN", "probe"]
    assert [line.split() for line in plain[1:]] == [
        ["raw", "50.00", "25.00"],
        ["mine", "100.00", "50.00"],
    ]
    rows["mine"] |= {"accuracy": 0.125, "1-shot": 0.25, "1-shot error": 0.01}
    found = score_table(rows)
    assert found[0].split() == ["percent", "kNN", "probe", "own", "head", "1-shot"]
    assert found[1].split() == ["raw", "50.00", "25.00"]
    assert found[2].split()[1:] == ["100.00", "50.00", "12.50", "25.00", "±", "1.00"]
    assert len({len(line) for line in found}) == 1
    assert score_table({}) == []
