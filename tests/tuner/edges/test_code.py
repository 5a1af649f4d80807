import sys

import pytest

from lightning_opplan.tuner.edges.code import code_hashes


@pytest.mark.parametrize("is_installed", [True, False])
def test_packages_on_the_path_are_installed_wherever_they_lie(tmp_path, monkeypatch, is_installed):
    name = f"of_a_cluster_{is_installed}"
    (tmp_path / f"{name}.py").write_text("class Network:\n    def forward(self, x):\n        return x\n")
    if is_installed:
        (tmp_path / "of_a_cluster-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    assert set(code_hashes([sys.modules[name].Network])) == (set() if is_installed else {f"{name}.Network"})


def test_what_a_property_uses_counts(tmp_path, monkeypatch):
    source = ["def helper():", "    return 1", "class Network:", "    scale = property(lambda self: helper())"]
    (tmp_path / "with_a_property.py").write_text("\n".join(source))
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("with_a_property")
    assert set(code_hashes([module.Network])) == {"with_a_property.Network", "with_a_property.helper"}
