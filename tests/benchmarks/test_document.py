import pytest

from benchmarks.document import DOCUMENT, insert, render
from benchmarks.race import Row, Table
from benchmarks.topics import TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_the_document_has_one_place_for_each_topic(topic: str) -> None:
    assert insert(DOCUMENT.read_text(), topic, "figures\n").count("figures\n") == 1


def test_new_figures_replace_the_old_figures_of_the_topic_and_nothing_else() -> None:
    text = "above\n<!-- pace -->\nold\n<!-- end of pace -->\nbelow <!-- fast -->\n"

    once = insert(text, "pace", r"new \1" + "\n")

    assert (
        once
        == "above\n<!-- pace -->\n" + r"new \1" + "\n<!-- end of pace -->\nbelow <!-- fast -->\n"
    )
    assert insert(once, "pace", "old\n") == text


def test_a_topic_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="one place for pace, and has 0"):
        insert("nothing here", "pace", "")


def test_rendered_figures_name_the_machine_and_the_duration() -> None:
    table = Table(unit="s", rows=[Row(what="it", samples=[1.0])])

    rendered = render([table], rounds=5, duration_s=120)

    assert table.markdown() in rendered
    assert "cores" in rendered
    assert "5 rounds in 2 min" in rendered
