"""Arms with known curves: what is trained follows from the rules by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.planning.graph import START, Axis, Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.space import SearchSpace
from lightning_opplan.planning.standings import averaged_value, standard_error

RATES = [0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]


def arms(number=18, branches=None, axes=(), moves=0, own=0.1, **choices):
    space = SearchSpace(axes=axes, branches=branches or {}, choices={"lr": RATES, "decay": [0, 1, 2, 3], **choices})
    return space.arms(number=number, own={"lr": own, "decay": 0}, moves=moves)


def trained(search, work, worth, price=lambda setting: 1.0, samples=None, start=0.0, **facts):
    """An outcome whose curve is `worth(setting, epoch)`; each piece of an arm takes a start, in hours."""
    setting = search.graph.settings[work.edge.child]
    curve = tuple((epoch, worth(setting, epoch + (work.since or 0))) for epoch in range(1, work.until + 1))
    cost = price(setting) * work.until
    value = averaged_value(curve)
    before = search.outcome(work.edge)
    starts = 3600 * start + (0.0 if before is None else before.start_seconds)
    return EdgeOutcome(
        edge=work.edge, value=value, knee_epoch=work.until, epochs_run=work.until, curve=curve,
        is_paused=value is not None, clip_frames=round(1000 * cost), seconds=3600 * cost + starts,
        start_seconds=starts, num_validation=samples, since=work.since, **facts,
    )  # fmt: skip


def run(search, worth, **options):
    """Search to the end; returns the work in order."""
    done = []
    while (work := search.ask()) is not None:
        done.append(work)
        search.tell(trained(search, work, worth, **options))
        assert len(done) < 1000
    return done


def by_rate(setting, epoch):
    """Better the nearer the rate is to 0.05, and slowly rising."""
    return 0.9 - 0.1 * abs(math.log10(setting["lr"] / 0.05)) - 0.01 * setting["decay"] - 0.3 / (epoch + 1)


def test_a_third_goes_on_for_three_times_as_long():
    """18, 6 and 2 arms; the own one and the best one are protected, which are no more."""
    search = Halving(arms(), budget=420, is_delivered=False)
    done = run(search, by_rate)
    assert [len(rung.edges) for rung in search.rungs] == [18, 6, 2]
    assert [rung.epochs for rung in search.rungs] == [10, 30, 90]
    assert sum(outcome.epochs_run for outcome in search.known) == 420
    assert [work.until for work in done] == [10] * 18 + [30] * 6 + [90] * 2
    best = search.graph.settings[search.best_so_far]
    assert min(abs(math.log10(rate / 0.05)) for rate in RATES) == abs(math.log10(best["lr"] / 0.05))


def test_an_arm_that_was_left_behind_comes_back_when_it_is_better():
    """All live arms compete at every rung, each by the last that is known of it."""

    def falling(setting, epoch):
        is_early = setting["lr"] in (0.4, 0.2, 0.1, 0.05)
        return (0.6 if epoch <= 10 else 0.3) if is_early else 0.5

    search = Halving(arms(18), budget=420, is_delivered=False)
    run(search, falling)
    first, second, last = (set(rung.edges) for rung in search.rungs)
    assert not last <= second
    assert last <= first


def test_all_is_spent_and_not_more_than_all():
    for budget in (30, 61, 100, 333, 1000):
        for delivered in (True, False):
            search = Halving(arms(branches={"a": {"b": 1}, "c": {"b": 2}}), budget=budget, is_delivered=delivered)
            run(search, by_rate)
            assert search.spent <= budget
            if not delivered:
                assert search.spent > budget - len(search.rungs[-1].edges) - 1


def test_fewer_arms_for_a_small_budget():
    search = Halving(arms(), budget=40)
    run(search, by_rate)
    assert len(search.rungs[0].edges) == 5  # eight epochs each


@pytest.mark.parametrize("unit", ["clip_frames", "gpu_hours"])
def test_where_epochs_differ_in_cost_arms_get_equal_epochs_and_the_budget_holds(unit):
    clip = Axis("clip", [{"length": 1}, {"length": 4}])
    scale = 1000 if unit == "clip_frames" else 1
    search = Halving(arms(axes=[clip]), budget=900 * scale, unit=unit, is_delivered=False)
    run(search, by_rate, price=lambda setting: setting["length"])
    assert search.spent <= 900 * scale
    assert search.spent > 860 * scale
    for rung in search.rungs:
        assert all(search.outcome(edge).epochs_run >= rung.epochs * 0.95 for edge in rung.edges)


@pytest.mark.parametrize("start", [0.5, 3, 10])
def test_a_slow_start_is_not_taken_for_slow_epochs(start):
    """Each piece of an arm starts anew; arms get as many epochs as the budget allows beside that."""
    search = Halving(arms(), budget=420, unit="gpu_hours", is_delivered=False)
    done = run(search, by_rate, price=lambda setting: 1.0, start=start)
    assert search.spent <= 420
    assert search.spent > 420 - 2 * (1 + start) - 10
    assert len(search.rungs[0].edges) == min(18, int(420 / (8 + start)))
    assert sum(outcome.epochs_run for outcome in search.known) > 420 - start * len(done) - 20


def test_where_there_is_nothing_to_choose_the_rest_is_for_the_delivery():
    space = SearchSpace(branches={"a": {"b": 1}, "c": {"b": 2}})
    for delivered, epochs in ((True, 8), (False, 100)):
        search = Halving(space.arms(own={"lr": 0.1}), budget=200, is_delivered=delivered)
        run(search, lambda setting, epoch: 1 - 1 / (epoch + 1))
        assert [outcome.epochs_run for outcome in search.known] == [epochs, epochs]


def test_the_first_arm_alone_says_what_an_epoch_costs():
    search = Halving(arms(), budget=1e6, unit="clip_frames")
    first = search.ask()
    assert (first.edge, first.until) == (Edge(START, search.arms.arms[0].name), 1)
    assert search.ask([first.edge]) is None


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data(), budget=st.integers(20, 600), workers=st.integers(1, 6))
def test_the_same_arms_on_any_number_of_workers_and_after_any_interruption(data, budget, workers):
    made = arms(branches={"a": {"b": 1}, "c": {"b": 2}})
    plain = Halving(made, budget=budget)
    run(plain, by_rate)
    search, running = Halving(made, budget=budget), []
    while True:
        while len(running) < workers and (work := search.ask([each.edge for each in running])) is not None:
            running.append(work)
        if not running:
            break
        work = running.pop(data.draw(st.integers(0, len(running) - 1)))
        search.tell(trained(search, work, by_rate))
        if data.draw(st.integers(0, 9)) == 0:  # killed: what runs is lost
            search, running = Halving(made, budget=budget, outcomes=search.known), []
    assert search.rungs == plain.rungs
    assert {o.edge: o for o in search.known} == {o.edge: o for o in plain.known}
    assert search.path() == plain.path()


@settings(max_examples=30, deadline=None)
@given(budget=st.integers(30, 500), factor=st.floats(1.1, 4))
def test_a_larger_budget_goes_on_and_repeats_nothing(budget, factor):
    first = Halving(arms(), budget=budget)
    run(first, by_rate)
    second = Halving(arms(), budget=budget * factor, outcomes=first.known)
    before = {outcome.edge: outcome.epochs_run for outcome in first.known}
    for work in run(second, by_rate):
        assert work.until > before.get(work.edge, 0)
    assert first.spent <= second.spent <= budget * factor + 1e-6


def test_dead_arms_leave():
    search = Halving(arms(), budget=420, is_delivered=False)
    run(search, lambda setting, epoch: None if setting["lr"] >= 0.05 else by_rate(setting, epoch))
    assert all(search.graph.settings[edge.child]["lr"] < 0.05 for edge in search.rungs[-1].edges)
    assert search.spent <= 420


def test_a_last_rung_of_dead_arms_does_not_lose_what_was_found_before():
    def dying(setting, epoch):
        return None if epoch > 40 else by_rate(setting, epoch)

    search = Halving(arms(), budget=420, is_delivered=False)
    run(search, dying)
    assert search.is_complete
    assert search.path() is not None
    assert search.best_so_far in search.winners


def test_without_any_value_there_is_no_path():
    search = Halving(arms(), budget=420)
    run(search, lambda setting, epoch: None)
    assert search.is_complete
    assert search.path() is None
    assert search.paths() == {}


def test_the_own_setting_and_the_best_of_each_branch_and_protected_setting_reach_the_last_rung():
    clip = Axis("clip", [{"length": 1}, {"length": 4}], protect=True)
    made = arms(axes=[clip], branches={"a": {"b": 1}, "c": {"b": 2}}, own=0.001)
    search = Halving(made, budget=900)
    run(
        search,
        lambda setting, epoch: by_rate(setting, epoch) + 0.2 * (setting["b"] == 1) + 0.2 * (setting["length"] == 1),
    )
    last = [search.arm(edge) for edge in search.rungs[-1].edges]
    assert {arm.branch for arm in last if arm.is_own} == {"a", "c"}
    for branch in ("a", "c"):
        assert any(arm.branch == branch and not arm.is_own for arm in last)
    assert {arm.setting["length"] for arm in last if not arm.is_own} == {1, 4}


def test_a_rung_that_decides_nothing_is_left_to_the_delivery():
    made = arms(branches={"a": {"b": 1}, "c": {"b": 2}}, own=0.05)
    search = Halving(made, budget=420)
    run(search, by_rate)
    assert search.rungs[-1].reason is not None
    assert search.spent < 300
    whole = Halving(made, budget=420, is_delivered=False)
    run(whole, by_rate)
    assert whole.rungs[-1].reason is None


def test_equals_go_to_the_own_setting_then_to_the_cheaper():
    """Half a point is less than the standard error of 400 samples, 1.5 points or more."""
    clip = Axis("clip", [{"length": 4}])
    made = arms(axes=[clip], own=0.001, costly=[1, 5])

    def nearly_equal(setting, epoch):
        return 0.9 - 0.0005 * RATES.index(setting["lr"])

    search = Halving(made, budget=4e5, unit="clip_frames")
    run(search, nearly_equal, samples=400, price=lambda setting: setting.get("costly", 1))
    order = [search.arm(edge) for edge in search.ranked()]
    assert order[0].is_own
    decisive = Halving(made, budget=4e5, unit="clip_frames")
    run(decisive, nearly_equal, samples=4_000_000, price=lambda setting: setting.get("costly", 1))
    assert decisive.graph.settings[decisive.best_so_far]["lr"] == 0.4


def test_an_earlier_position_has_to_be_ahead_by_more_than_the_standard_error():
    clip = Axis("clip", [{"length": 1}, {"length": 4}])

    def short_first(ahead):
        return lambda setting, epoch: 0.8 + ahead * (setting["length"] == 1) - 0.001 * RATES.index(setting["lr"])

    for ahead, expected in ((0.012, 4), (0.06, 1)):  # 400 samples: 2 points
        search = Halving(arms(axes=[clip], own=0.001), budget=420)
        run(search, short_first(ahead), samples=400)
        assert search.graph.settings[search.best_so_far]["length"] == expected


def test_blind_arms_are_not_ranked():
    """Nothing that only predicts the frequencies of the classes is taken for better than another such arm."""
    chance = 0.32
    facts = {"samples": 100, "unlearned": chance}

    def late(setting, epoch):
        lucky = 0.03 * (setting["lr"] == 0.4)  # within the standard error of chance
        return 0.6 if setting["lr"] == 0.02 and epoch > 5 else chance + lucky

    search = Halving(arms(own=0.005), budget=420)
    run(search, late, **facts)
    assert search.graph.settings[search.best_so_far]["lr"] == 0.02
    assert len(search.rungs[1].edges) == 6
    blind = Halving(arms(own=0.005), budget=420)
    run(blind, lambda setting, epoch: chance + 0.03 * (setting["lr"] == 0.4), **facts)
    assert blind.arm(blind.ranked()[0]).is_own
    assert blind.is_blind(blind.ranked()[0])
    # As nothing says which are the better ones, all have had as many epochs.
    assert [len(rung.edges) for rung in blind.rungs] == [18, 18, 18]
    assert {outcome.epochs_run for outcome in blind.known} == {420 // 18}


def test_what_is_learned_late_is_found_when_all_were_blind():
    def late(setting, epoch):
        return 0.9 if setting["lr"] == 0.02 and epoch > 12 else 0.32

    search = Halving(arms(own=0.005), budget=420)
    run(search, late, samples=100, unlearned=0.32)
    assert search.graph.settings[search.best_so_far]["lr"] == 0.02


def test_moves_fork_the_best_arm_in_the_last_rung():
    search = Halving(arms(number=9, moves=1), budget=300, moves=1, is_delivered=False)
    done = run(search, lambda setting, epoch: by_rate(setting, epoch) - 0.05 * (setting["lr"] >= 0.1) * (epoch > 20))
    (fork,) = [work for work in done if work.edge.parent != START]
    before = search.rungs[-2].epochs
    assert fork.since == before
    assert fork.until == search.rungs[-1].epochs - before
    assert done.index(fork) < max(index for index, work in enumerate(done) if work.edge == search.parent(fork.edge))
    assert search.spent <= 300
    path = search.path(fork.edge.child)
    assert [step.epochs for step in path.steps] == [before, fork.until]


def test_an_arm_waits_for_its_forks_and_is_not_forked_once_it_has_gone_on():
    made = arms(number=9, moves=2)
    search = Halving(made, budget=300, moves=2, is_delivered=False)
    while not any(work.edge.parent != START for work in search._wanted):
        search.tell(trained(search, search.ask(), by_rate))
    forks = [work.edge for work in search._wanted if work.edge.parent != START]
    assert len(forks) == 2
    waiting = {search.parent(edge) for edge in forks}
    assert not waiting & {work.edge for work in search._wanted}
    run(search, by_rate)
    known = {outcome.edge for outcome in search.known}
    larger = Halving(made, budget=900, moves=2, is_delivered=False, outcomes=search.known)
    for work in run(larger, by_rate):
        parent = larger.parent(work.edge)
        assert parent is None or work.edge in known or search.outcome(parent).epochs_run <= work.since


def test_a_search_for_the_lowest():
    search = Halving(arms(), budget=420, mode="min", is_delivered=False)
    run(search, lambda setting, epoch: -by_rate(setting, epoch))
    best = search.graph.settings[search.best_so_far]
    assert best["lr"] == 0.05


def test_the_value_is_the_mean_of_the_last_three_validations():
    points = [(0, 0.1), (1, 0.2), (2, 0.4), (3, 0.6), (4, 0.5)]
    assert averaged_value(points) == pytest.approx(0.5)
    assert averaged_value(points, until=2) == pytest.approx(0.3)
    assert averaged_value([(0, 0.1)]) is None
    assert averaged_value([*points, (5, None)]) is None


def test_the_standard_error_is_that_of_a_share_or_of_the_scatter():
    assert standard_error(0.8, [], 400) == pytest.approx(0.02)
    noise = [(epoch, 0.5 + 0.1 * (-1) ** epoch) for epoch in range(1, 40)]
    assert standard_error(0.5, noise, None) == pytest.approx(1.4826 * 0.4 / math.sqrt(18))
    assert standard_error(0.5, [(1, 0.5)], None) == 0.0


def test_an_edge_of_another_search_is_refused():
    with pytest.raises(ValueError, match="must be of an edge of the search"):
        Halving(arms(), budget=10).tell(EdgeOutcome(edge=Edge(START, "x"), value=1.0, knee_epoch=1, epochs_run=1))
