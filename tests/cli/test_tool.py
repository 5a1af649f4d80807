import pytest
from jsonargparse import ArgumentParser

from lightning_opplan.cli.tool import add_list, flat


@pytest.mark.parametrize(
    ("kind", "words", "values"),
    [
        (float, ["2", "1"], [2.0, 1.0]),
        (float, ["[2, 1]"], [2.0, 1.0]),
        (str, ["a.npz", "b.npz"], ["a.npz", "b.npz"]),
        (str, ["[a.npz, b.npz]"], ["a.npz", "b.npz"]),
        (str, ["a.npz"], ["a.npz"]),
        (int, ["3"], [3]),
    ],
)
def test_values_are_given_one_after_the_other_or_as_a_list(kind, words, values):
    parser = ArgumentParser()
    add_list(parser, "--given", kind)
    assert flat(parser.parse_args(["--given", *words]).given) == values


def test_nothing_given_is_nothing():
    parser = ArgumentParser()
    add_list(parser, "--given", int)
    assert flat(parser.parse_args([]).given) is None
