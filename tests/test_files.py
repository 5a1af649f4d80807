import pytest

from lightning_opplan.files import remove_partial, replacing, write_json, write_text


def test_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "new" / "a.txt"
    write_text(file, "one")
    with replacing(file) as partial:
        partial.write_text("two")
        assert file.read_text() == "one"
    assert file.read_text() == "two"
    assert [entry.name for entry in file.parent.iterdir()] == ["a.txt"]


def test_error_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json") as partial:
        partial.write_text(f"half{1 / 0}")
    assert (tmp_path / "a.json").read_text() == '{"x": 1}'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_processes_that_write_at_once_do_not_share_a_name(tmp_path):
    with replacing(tmp_path / "a", shared=True) as one:
        one.write_text("one")
        with replacing(tmp_path / "a", shared=True) as other:
            assert other != one
            other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / "a.tmp").touch()
    (tmp_path / "b").touch()
    remove_partial(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
