import time
import urllib.error
import urllib.request

import pytest

from lightning_opplan.planning.progress import SearchStatus
from lightning_opplan.reporting import LiveReport
from lightning_opplan.reporting import live as live_module
from lightning_opplan.reporting.watch import ReportServer
from tests.helpers import toy
from tests.reporting.test_html import data_of, search  # noqa: F401


def test_report_is_renewed_as_epochs_end_and_reloads_no_more_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(live_module, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(live_module, "_LARGEST_SHARE", 1e9)
    seen = []
    write = live_module.write_report

    def recording(*args, **options):
        file = write(*args, **options)
        data = data_of(file.read_text())
        seen.append((options["reload_seconds"] is not None, data))
        return file

    monkeypatch.setattr(live_module, "write_report", recording)
    toy.tuner(tmp_path, graph=toy.graph((0.1,), (8,)), max_epochs=4).search()
    epochs = [entry["n"] for _, data in seen for entry in data["edges"] if entry["s"] == "running"]
    assert set(epochs) == {0, 1, 2, 3, 4}
    assert epochs == sorted(epochs)
    grown = [len(entry.get("y", ())) for _, data in seen for entry in data["edges"] if entry["s"] == "running"]
    assert grown[-1] == 5  # the value before training, and four epochs
    assert all(is_live for is_live, _ in seen[:-1])
    assert not seen[-1][0]
    assert seen[-1][1]["state"] == "finished"
    assert SearchStatus.read(tmp_path).state == "finished"
    assert not list(tmp_path.glob("edges/*/progress.json"))


def test_interrupted_search_says_so(tmp_path):
    def interrupt(edge, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.tuner(tmp_path, graph=toy.graph((0.1, 0.01), (8,)), max_epochs=3, on_edge_end=interrupt).search()
    assert SearchStatus.read(tmp_path).state == "ended"
    data = data_of((tmp_path / "report.html").read_text())
    assert data["state"] == "ended"
    assert "reload" not in data


def test_report_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(live_module, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(live_module, "write_report", fail)
    with pytest.warns(UserWarning, match=r"The report could not be written: OSError\('the disk is full'\)") as caught:
        result = toy.tuner(tmp_path, graph=toy.graph((0.1,), (8,)), max_epochs=3).search()
    assert result.is_complete
    assert len([each for each in caught if "could not be written" in str(each.message)]) == 1


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(live_module, "write_report", lambda *args, **options: calls.append(time.sleep(0.1)))
    report = LiveReport(tmp_path)
    for _ in range(1000):
        report.renew()
    assert len(calls) == 1
    assert report._next - time.monotonic() > 4.5  # fifty times as long as the writing took
    LiveReport(tmp_path, enabled=False).renew()
    assert len(calls) == 1


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.status, answer.read().decode()


def test_server_answers_this_machine_alone_and_only_news(search, tmp_path):  # noqa: F811
    import threading

    search[1](3)
    with ReportServer(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            _, html = get(server.url)
            version = data_of(html)["version"]
            assert get(f"{server.url}update.json?since={version}") == (204, "")
            status, update = get(f"{server.url}update.json?since=older")
            assert status == 200
            assert version in update
            with pytest.raises(urllib.error.HTTPError, match="403"):
                get(server.url, Host="example.com")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{server.url}../../etc/passwd")
            SearchStatus(state="ended", updated=1.0).write(tmp_path)
            assert get(f"{server.url}update.json?since={version}")[0] == 200
            with pytest.raises(OSError, match=f"Port {server.server_port} cannot be listened at"):
                ReportServer(tmp_path, port=server.server_port)
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(FileNotFoundError, match="no journal"):
        ReportServer(tmp_path / "nowhere")
