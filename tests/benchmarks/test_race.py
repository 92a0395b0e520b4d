from benchmarks.race import Row, Table, race


def test_contestants_take_turns_and_each_turn_is_followed_by_a_cleanup() -> None:
    seen: list[str] = []

    def contestant(name: str, taken_s: float) -> float:
        seen.append(name)
        return taken_s

    taken = race(
        {"a": lambda: contestant("a", 1.0), "b": lambda: contestant("b", 2.0)},
        rounds=2,
        tidy=lambda: seen.append("tidy"),
        tell=lambda _: None,
    )

    assert seen == ["a", "tidy", "b", "tidy"] * 2
    assert taken == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_a_ratio_is_the_median_over_rounds_not_the_ratio_of_medians() -> None:
    slow_first_round = [10.0, 1.0, 1.0]
    table = Table(
        unit="s",
        base="host",
        rows=[
            Row(what="host", samples=slow_first_round),
            Row(what="archiver", samples=[20.0, 3.0, 2.0], goal="≤ 3"),
        ],
    )

    assert table.markdown().splitlines()[2:] == [
        "| host | 1.0 | 1.0 to 10.0 | 1.00 | 1.00 to 1.00 |  |",
        "| archiver | 3.0 | 2.0 to 20.0 | 2.00 | 2.00 to 3.00 | ≤ 3 |",
    ]


def test_a_table_without_base_or_goals_has_no_such_columns() -> None:
    table = Table(unit="MB", rows=[Row(what="1 GB", samples=[99.6, 100.4])], digits=0)

    assert table.markdown() == (
        "|  | median, MB | min to max |\n| --- | --: | --: |\n| 1 GB | 100 | 100 to 100 |\n"
    )
