from pathlib import Path

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.progress import EdgeProgress, SearchStatus, edges_under_way

TOLD = EdgeProgress(
    edge=Edge("start", "a/1"), plan="x", epoch=2, value=0.5, knee=1, curve=((1, None), (2, 0.5)), until=9, seconds=3.5,
    devices=2, updated=7.0,
)  # fmt: skip


def test_progress_is_read_as_it_was_written(tmp_path):
    TOLD.write(tmp_path)
    assert EdgeProgress.read(tmp_path) == TOLD
    assert not TOLD.interrupted().is_running


def test_what_cannot_be_read_or_written_is_passed_over(tmp_path):
    assert EdgeProgress.read(tmp_path) is None
    for text in ("", "[1]", '{"edge": ["a"], "curve": []}', '{"edge": ["a", "b"], "curve": [[1]]}'):
        (tmp_path / "progress.json").write_text(text)
        assert EdgeProgress.read(tmp_path) is None
    (tmp_path / "file").write_text("")
    TOLD.write(tmp_path / "file")  # no folder can be made there: no training fails over it
    (tmp_path / "status.json").write_text('{"state": "asleep"}')
    assert SearchStatus.read(tmp_path) is None


def test_edges_of_another_plan_are_left_out(tmp_path):
    for number, plan in enumerate("xy"):
        folder = Path(tmp_path, "edges", str(number))
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text("")
        EdgeProgress(edge=Edge("start", plan), plan=plan).write(folder)
    assert list(edges_under_way(tmp_path, "x")) == [("start", "x")]
    assert edges_under_way(tmp_path / "nowhere", "x") == {}
