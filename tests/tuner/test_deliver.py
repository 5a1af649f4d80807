"""What is trained after a search, and what is tested of it."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

from lightning_opplan import Anneal, Ensemble, predict_ensemble, reporting, run_control, run_delivery, score_ensemble
from lightning_opplan.planning.journal import Journal, JournalError
from tests.helpers import budgeted, toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A search with its delivery, its control, and all their tests."""
    folder = tmp_path_factory.mktemp("deliver") / "run"
    made = budgeted.tuner(folder)
    made.search()
    delivered = run_delivery(made, setting=budgeted.FINAL)
    control = run_control(made, setting=budgeted.FINAL)
    scores = {
        file: score_ensemble(file, made.spec.recipe)
        for file in (folder / "ensemble.yaml", delivered.ensembles[""], *control.ensembles.values())
    }
    return folder, delivered, control, scores


def networks(file):
    for member in Ensemble.load(file).members:
        model = budgeted.Scorer()
        model.load_state_dict(torch.load(member.weights, weights_only=True)["state_dict"])
        yield member.name, model.eval()


def test_data():
    data = budgeted.Points()
    data.setup("test")
    return data.test[:]


test_data.__test__ = False


def test_the_rest_of_the_budget_goes_into_members_on_all_data(finished):
    folder, delivered, _, _ = finished
    search = Journal.of(folder).read()[1]
    own = list(delivered.result.outcomes.values())
    assert 1 <= len(own) <= 8
    samples = sum(outcome.num_samples for outcome in own)
    assert all(outcome.num_samples == 240 * outcome.epochs_run for outcome in own)  # 160 and 80 of the validation set
    spent = search.spent + samples / 160
    assert 90 - 1.5 * len(own) - 1 <= spent <= 90
    assert {len({tuple(sorted(setting.items())) for setting, _ in member.stages}) for member in delivered.members} == {
        1
    }
    assert delivered.members[0].stages[0][0]["model.lr"] == search.path().steps[0].setting["model.lr"]


def test_members_have_seeds_of_their_own(finished):
    _, delivered, _, _ = finished
    weights = [model.state_dict()["network.0.weight"] for _, model in networks(delivered.ensembles[""])]
    assert len({tuple(tensor.flatten().tolist()) for tensor in weights}) == len(weights)


def test_control_spends_the_whole_at_the_own_rate_for_each_schedule(finished):
    _, _, control, _ = finished
    assert sorted(control.ensembles) == ["cosine", "linear"]
    for outcome in control.result.outcomes.values():
        assert outcome.num_samples / 160 == pytest.approx(90, abs=1.5)
    for member in control.members:
        assert member.stages[0][0] == {"data.batch_size": 32, **budgeted.FINAL}


def test_scores_are_averaged_with_equal_weights(finished):
    """Against the mean of the networks' outputs, computed by hand."""
    _, delivered, _, scores = finished
    file = delivered.ensembles[""]
    points, labels = test_data()
    with torch.no_grad():
        outputs = {name: model(points).double() for name, model in networks(file)}
    mean = sum(outputs.values()) / len(outputs)
    found = scores[file]
    assert found["ensemble"]["test/accuracy"] == pytest.approx((mean.argmax(1) == labels).float().mean().item())
    assert found["ensemble"]["test/loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(mean, labels).item(), rel=1e-5
    )
    for name, output in outputs.items():
        alone = (output.argmax(1) == labels).float().mean().item()
        assert found["members"][name]["test/accuracy"] == pytest.approx(alone)
    assert json.loads((file.parent / "test.json").read_text()) == found


def test_predictions_are_made_with_the_mean(finished):
    _, delivered, _, _ = finished
    file = delivered.ensembles[""]
    points, _ = test_data()
    batches = predict_ensemble(file, budgeted.tuner(file.parent).spec.recipe)
    with torch.no_grad():
        outputs = [model(points).double() for _, model in networks(file)]
    mean = sum(outputs) / len(outputs)
    np.testing.assert_allclose(torch.cat(batches).numpy(), mean.softmax(1).numpy(), atol=1e-5)


def test_the_best_single_training_is_kept_apart(finished):
    _, delivered, _, _ = finished
    first = Ensemble.load(delivered.ensembles[""]).members[0]
    assert delivered.weights.read_bytes() == first.weights.read_bytes()


def test_the_report_begins_with_what_was_ahead(finished):
    folder, *_ = finished
    rows = reporting.tested_of(folder)
    assert [row.role for row in rows] == ["planned", "delivered", "control", "control"]
    by_role = {row.title: row for row in rows}
    delivered, control = by_role["delivered"], by_role["control (linear)"]
    assert delivered.cost.epochs > control.cost.epochs * 0.9
    sentence = reporting.verdict(rows, "max")
    assert {row.num_samples for row in rows} == {len(test_data()[0])}
    best = max(row.value for row in rows if row.role == "control")
    error = math.sqrt(sum(share * (1 - share) for share in (best, delivered.value)) / len(test_data()[0]))
    if abs(best - delivered.value) < error:
        assert "are level" in sentence
    else:
        assert sentence.startswith("The control is ahead" if best > delivered.value else "Planning is ahead")
    text = reporting.write_report(folder).read_text()
    assert sentence in text.replace("&#39;", "'")
    assert f"{by_role['searched'].value:.4f}" in text


def test_what_has_ended_trains_nothing_again(finished, monkeypatch):
    folder, delivered, control, _ = finished
    monkeypatch.setattr(budgeted.Scorer, "training_step", lambda *_: pytest.fail("trained again"))
    made = budgeted.tuner(folder)
    assert run_delivery(made, setting=budgeted.FINAL).members == delivered.members
    assert run_control(made, setting=budgeted.FINAL).members == control.members


def test_another_delivery_in_the_folder_is_refused(finished):
    folder, *_ = finished
    with pytest.raises(JournalError, match="what followed from another search.*Move it away"):
        run_delivery(budgeted.tuner(folder), members=2, setting=budgeted.FINAL)


def test_the_paper_s_search_is_delivered_too(tmp_path):
    """Its budget is what it took, and half as much again; its path lowers the rate itself."""
    made = toy.tuner(tmp_path)
    result = made.search()
    delivered = run_delivery(made, members=2)
    assert [member.name for member in delivered.members] == ["final 1", "final 2"]
    epochs = [stage.epochs for _, stage in delivered.members[0].stages]
    assert epochs == [step.epochs for step in result.path.steps if step.epochs]
    assert all(stage.is_constant for _, stage in delivered.members[0].stages)


def test_anneal_is_followed(tmp_path):
    made = budgeted.tuner(tmp_path)
    made.search()
    delivered = run_delivery(made, members=1, anneal=Anneal(share=0.5, shape="sqrt"))
    assert delivered.members[0].stages[-1][1].anneal == Anneal(share=0.5, shape="sqrt")


def test_a_delivery_before_the_end_of_the_search_is_refused(tmp_path):
    made = budgeted.tuner(tmp_path)
    with pytest.raises(JournalError, match="has no search yet"):
        run_delivery(made)
    Journal.of(tmp_path).open(made.spec.record)
    with pytest.raises(RuntimeError, match="The search has not ended"):
        run_delivery(made)


def test_nothing_left_is_said(tmp_path):
    made = budgeted.tuner(tmp_path, budget={"clip_frames": 160 * 30, "search_share": 1.0})
    made.search()
    with pytest.raises(RuntimeError, match="nothing is left to deliver"):
        run_delivery(made)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "no such file"),
        ("members: 3", ValueError, "a list of `members`"),
        ("a: [", ValueError, "must be a YAML file"),
        ("members: [{name: a}]", ValueError, "must have a `name` and `weights`"),
        ("members: [{name: a, weights: b, sett: {}}]", ValueError, "Did you mean 'set'"),
        ("members: [{name: a, weights: gone.ckpt}]", FileNotFoundError, "the weights of 'a' are gone"),
    ],
    ids=["no file", "no list", "no YAML", "no weights", "name", "gone"],
)
def test_files_that_are_no_ensemble(tmp_path, content, error, message):
    file = tmp_path / "ensemble.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(error, match=message):
        Ensemble.load(file)


def test_a_module_that_does_not_call_itself_is_refused(finished, monkeypatch):
    _, delivered, _, _ = finished
    file = delivered.ensembles[""]

    def past_itself(self, batch, _):
        self.log("test/accuracy", self.network(batch[0]).mean())

    monkeypatch.setattr(budgeted.Scorer, "test_step", past_itself)
    with pytest.raises(ValueError, match=r"must score with `self\(batch\)`"):
        score_ensemble(file, budgeted.tuner(file.parent).spec.recipe)


def test_members_that_see_other_samples_are_refused(finished, tmp_path):
    _, delivered, _, _ = finished
    first, *_ = Ensemble.load(delivered.ensembles[""]).members
    members = [
        {"name": name, "weights": str(first.weights), "set": {"data.num_test": number}}
        for name, number in (("a", 5), ("b", 7))
    ]
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump({"members": members}))

    class Fewer(budgeted.Points):
        def __init__(self, num_test=5, **options):
            super().__init__(**options)
            self.num_test = num_test

        def test_dataloader(self):
            return torch.utils.data.DataLoader(self.test, batch_size=self.num_test)

    with pytest.raises(ValueError, match="All members must see the same samples"):
        score_ensemble(tmp_path / "ensemble.yaml", budgeted.tuner(tmp_path, data=Fewer).spec.recipe)
