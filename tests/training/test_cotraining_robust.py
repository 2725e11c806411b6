"""Co-training with labels that can be taken back: what is accepted, when it ends, what is kept out."""

from dataclasses import replace

import numpy as np
import pytest

from device.classifier import softmax
from device.errors import ConfigError
from training.cotraining.robust import RobustSettings, co_train_robust
from training.cotraining.trust import cohen_kappa, jaccard, precision_threshold, select_trusted
from training.dataset.samples import Samples

CLASSES = ("live", "dead")
ALL = RobustSettings(believed=1.0)


def make_samples(n, seed, name=None):
    """The mean gray of an image tells its class: 50 live, 150 dead."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(0, 100, (n, 28, 28)).astype(np.uint8) + (100 * y[:, None, None]).astype(np.uint8)
    groups = np.array([f"{name or seed}-{i // 2}" for i in range(n)])
    return Samples(x, y.astype(np.intp), groups, "train", "fake", CLASSES)


def score(x, *, flip=False):
    dead = (x.mean(axis=(1, 2)) - 100) / (-20 if flip else 20)
    return np.stack([-dead, dead], axis=1).astype(np.float32)


def knows(samples, round_index):
    return score


def opposite(samples, round_index):
    return lambda x: score(x, flip=True)


def turns(image, rounds):
    """A learner that calls one image the other way in some rounds."""

    def fit(samples, round_index):
        def logits(x):
            other = (x == image).all(axis=(1, 2)) & (round_index in rounds)
            return score(x) * np.where(other, -1, 1)[:, None].astype(np.float32)

        return logits

    return fit


def harmful(samples, round_index):
    """Unlearns all as soon as it is given a pseudo-label."""
    return lambda x: score(x, flip=len(samples) > 8)


def quiet(_line):
    pass


def run(
    labeled=None,
    unlabeled=None,
    *,
    fit_a=knows,
    fit_b=knows,
    quick=knows,
    settings=ALL,
    progress=quiet,
    **more,
):
    return co_train_robust(
        make_samples(8, 1) if labeled is None else labeled,
        make_samples(20, 2) if unlabeled is None else unlabeled,
        fit_a=fit_a,
        fit_b=fit_b,
        quick=quick,
        settings=settings,
        progress=progress,
        **more,
    )


def sizes(found):
    return [step.n_pseudo_labeled for step in found.rounds]


def test_learners_that_never_agree_leave_nothing_pseudo_labeled():
    found = run(fit_b=opposite)
    assert found.pseudo == {}
    assert found.ending == "I_F unchanged"
    assert found.rounds[0].disagreement == 1
    assert found.rounds[0].kappa == pytest.approx(-1)


@pytest.mark.parametrize("shares", [(0.2, 0.8), (0.8, 0.2)])
def test_shares_do_not_make_opposite_learners_agree(shares):
    found = run(fit_b=opposite, shares=np.array(shares))
    assert found.rounds[0].disagreement < 0.6  # both call mostly the larger class
    assert found.rounds[0].n_candidates == 0
    assert found.pseudo == {}


def test_learners_that_agree_label_everything_and_it_ends_unchanged():
    found = run()
    assert [step.n_trained_on for step in found.rounds] == [0, 20]
    assert sizes(found) == [20, 20]
    assert found.ending == "I_F unchanged"
    assert found.best_round == 1
    assert found.pseudo == {i: i % 2 for i in range(20)}
    assert found.pseudo_labeled.count() == {"live": 10, "dead": 10}


def test_three_classes_are_labeled_too():
    def three(n, seed):
        made = make_samples(n, seed)
        y = np.arange(n) % 3
        x = (60 * y + 20)[:, None, None] + np.random.default_rng(seed).integers(0, 40, (n, 28, 28))
        return replace(made, x=x.astype(np.uint8), y=y, classes=("live", "dead", "debris"))

    def fit(samples, round_index):
        means = np.array([samples.x[samples.y == k].mean() for k in range(3)])
        return lambda x: -np.abs(x.mean(axis=(1, 2))[:, None] - means).astype(np.float32) / 10

    found = run(three(12, 1), three(30, 2), fit_a=fit, fit_b=fit, quick=fit)
    assert found.shares == pytest.approx([1 / 3] * 3, abs=0.01)
    assert found.pseudo == {i: i % 3 for i in range(30)}


def test_one_round_is_both_learners_on_the_labels_alone():
    found = run(settings=replace(ALL, max_rounds=1))
    assert found.ending == "round limit"
    assert sizes(found) == [20]
    assert found.pseudo == {}  # what was found in the last round taught nobody
    assert len(found.pseudo_labeled) == 0
    assert found.both(make_samples(6, 3).x).argmax(axis=1).tolist() == [0, 1] * 3


def test_i_f_is_at_most_the_share_that_is_believed_and_by_the_shares_of_classes():
    settings = RobustSettings(believed=0.4, max_rounds=1)
    found = run(settings=settings, shares=np.array([0.75, 0.25]))
    assert found.rounds[0].per_class == {"live": 6, "dead": 2}
    assert found.rounds[0].n_candidates == 15  # of ten dead ones five are called in these shares


@pytest.mark.parametrize(("precision_min", "taken"), [(0.95, (5, 0)), (0.8, (10, 10))])
def test_agreement_alone_is_not_enough(precision_min, taken):
    """The quick learner is wrong on a live label that looks deader than the unlabeled dead ones."""
    labeled, unlabeled = make_samples(8, 1), make_samples(20, 2)
    labeled.x[0] = 145
    unlabeled.x[1::2] -= 30
    found = run(labeled, unlabeled, settings=replace(ALL, precision_min=precision_min, max_rounds=1))
    assert found.rounds[0].disagreement == 0
    assert tuple(found.rounds[0].per_class.values()) == taken  # half of the candidates may be live


@pytest.mark.parametrize("who", ["fit_a", "fit_b"])
def test_a_label_is_taken_back_when_a_learner_changes_its_mind(who):
    unlabeled = make_samples(20, 2)
    found = run(
        unlabeled=unlabeled, settings=replace(ALL, max_rounds=2), **{who: turns(unlabeled.x[1], [1, 2])}
    )
    assert sizes(found) == [20, 19]
    assert [step.revoked for step in found.rounds] == [0, 1]
    assert found.rounds[1].per_class == {"live": 10, "dead": 9}
    assert found.rounds[1].disagreement > 0


@pytest.mark.parametrize("shares", [None, np.array([0.3, 0.7])])
@pytest.mark.parametrize("other", [opposite, harmful, turns(make_samples(20, 2).x[3], [0, 2])])
def test_order_of_learners_does_not_matter(other, shares):
    one = run(fit_a=knows, fit_b=other, shares=shares)
    same = run(fit_a=other, fit_b=knows, shares=shares)
    assert one.pseudo == same.pseudo
    assert one.rounds == same.rounds
    x = make_samples(6, 3).x
    assert np.array_equal(one.one[0](x), same.one[1](x))
    assert np.array_equal(one.one[1](x), same.one[0](x))
    assert one.both(x) == pytest.approx(same.both(x), abs=1e-4)


def test_equal_seeds_give_the_same_labels():
    def random(samples, round_index):
        rng = np.random.default_rng(round_index)
        return lambda x: score(x) * rng.uniform(0.5, 1.5, (len(x), 1)).astype(np.float32)

    one, other = (run(fit_a=random, quick=random, settings=RobustSettings()) for _ in range(2))
    assert one.pseudo == other.pseudo
    assert one.rounds == other.rounds
    assert len(one.pseudo) > 0


def test_a_restless_learner_is_ended_by_the_round_limit():
    unlabeled = make_samples(20, 2)

    def restless(samples, round_index):
        return turns(unlabeled.x[round_index], [round_index])(samples, round_index)

    found = run(fit_a=restless, settings=replace(ALL, max_rounds=5), unlabeled=unlabeled)
    assert len(found.rounds) == 5
    assert found.ending == "round limit"
    assert len(run(fit_a=restless, unlabeled=unlabeled).rounds) == 4  # by default


@pytest.mark.parametrize(
    ("settled", "n_rounds", "ending"), [(0.99, 3, "I_F settled"), (199 / 200, 4, "round limit")]
)
def test_labels_that_hardly_change_end_it_as_settled(settled, n_rounds, ending):
    unlabeled = make_samples(200, 2)
    found = run(
        fit_a=turns(unlabeled.x[0], [0, 2]),
        unlabeled=unlabeled,
        settings=replace(ALL, max_rounds=4, settled=settled),
    )
    assert sizes(found) == [199, 200, 199, 200][:n_rounds]
    assert [step.revoked for step in found.rounds][:3] == [0, 0, 1]
    assert found.ending == ending


def test_a_harmful_round_is_rolled_back_to_the_best_and_the_second_ends_it():
    seen = []

    def spying(samples, round_index):
        seen.append(len(samples))
        return score

    found = run(fit_a=spying, quick=harmful, settings=RobustSettings(max_rounds=9))
    assert found.ending == "rolled back twice"
    assert [step.rolled_back for step in found.rounds] == [False, True, True]
    assert seen == [8, 8 + 12, 8 + 6]  # half as many pseudo-labels after the roll-back
    assert found.best_round == 0
    assert found.pseudo == {}


def scripted(labeled, *nll):
    """A quick learner whose cross-fitted NLL of each label is what is said, in rounds 0, 1, ..."""
    place = {image.tobytes(): i for i, image in enumerate(labeled.x)}

    def fit(samples, round_index):
        def logits(x):
            given = score(x)
            for row, image in enumerate(x):
                if image.tobytes() in place:
                    i = place[image.tobytes()]
                    margin = -np.log(np.exp(nll[min(round_index, len(nll) - 1)][i]) - 1)
                    y = labeled.y[i]
                    given[row, y], given[row, 1 - y] = margin / 2, -margin / 2
            return given

        return logits

    return fit


@pytest.mark.parametrize(("errors", "harm"), [(0.99, False), (1.01, True)])
def test_a_round_is_harmful_one_standard_error_above_the_lowest_nll(errors, harm):
    labeled = make_samples(8, 1)
    first = np.linspace(0.1, 0.5, 8)
    more = first + errors * first.std(ddof=1) / np.sqrt(8)
    found = run(labeled, quick=scripted(labeled, first, more), shares=np.array([0.5, 0.5]))
    assert [step.label_nll for step in found.rounds[:2]] == pytest.approx([first.mean(), more.mean()])
    assert [step.rolled_back for step in found.rounds[:2]] == [False, harm]


@pytest.mark.parametrize(("accuracy_drop", "harm"), [(0.125, False), (0.12, True)])
def test_a_round_is_harmful_if_it_loses_balanced_accuracy(accuracy_drop, harm):
    labeled = make_samples(8, 1)
    first = np.full(8, 0.5)
    wrong = np.r_[0.7, np.full(7, 0.3)]  # ln 2 = 0.693: the first is wrong, and the NLL lower
    found = run(
        labeled,
        quick=scripted(labeled, first, wrong),
        shares=np.array([0.5, 0.5]),
        settings=replace(ALL, accuracy_drop=accuracy_drop),
    )
    assert [step.label_balanced_accuracy for step in found.rounds[:2]] == [1, 0.875]
    assert [step.rolled_back for step in found.rounds[:2]] == [False, harm]


def test_harm_is_measured_by_the_lowest_nll_so_far():
    labeled = make_samples(8, 1)
    nll = [np.linspace(low, low + 0.02, 8) for low in (0.3, 0.2, 0.25)]
    found = run(
        labeled,
        fit_a=turns(make_samples(20, 2).x[0], [1]),
        quick=scripted(labeled, *nll),
        settings=replace(ALL, max_rounds=3),
    )
    assert [step.rolled_back for step in found.rounds] == [False, False, True]
    assert found.best_round == 1


def test_few_labels_that_are_all_right_do_not_sharpen():
    labeled = make_samples(8, 1)
    said = np.full(8, 0.4)
    found = run(labeled, quick=scripted(labeled, said), shares=np.array([0.5, 0.5]))
    assert found.rounds[0].label_nll == pytest.approx(0.4)


def test_labels_that_the_quick_learner_was_fitted_to_never_guard():
    labeled = make_samples(20, 1)
    images = {image.tobytes(): group for image, group in zip(labeled.x, labeled.group, strict=True)}
    n_asked = []

    def spying(samples, round_index):
        def logits(x):
            held = {images[image.tobytes()] for image in x if image.tobytes() in images}
            assert not held & set(samples.group)
            n_asked.append(len(held))
            return score(x)

        return logits

    run(labeled, quick=spying, settings=replace(ALL, max_rounds=1))
    assert sum(n_asked) == 10  # each group once


@pytest.mark.parametrize("lone", ["group", "sample of a class"])
def test_labels_that_cannot_be_held_out_guard_nothing(lone):
    labeled = make_samples(8, 1)
    if lone == "group":
        labeled.group[:] = "one"
    else:
        labeled = labeled.take(np.array([0, 1]))
        labeled.group[:] = ["a", "b"]
    found = run(labeled)
    assert found.rounds[0].label_nll == 0
    assert sizes(found)[0] == 20


def test_learners_are_fitted_to_labels_and_pseudo_labels():
    seen = []

    def spying(samples, round_index):
        seen.append((round_index, len(samples)))
        return score

    run(fit_a=spying)
    assert seen == [(0, 8), (1, 28)]


def test_labels_of_the_unlabeled_are_never_looked_at():
    hidden = make_samples(20, 2)
    hidden.y[:] = -1
    found = run(unlabeled=hidden)
    assert found.pseudo == run().pseudo
    assert found.rounds == run().rounds
    assert found.pseudo_labeled.y.tolist() == [0, 1] * 10


def test_learners_that_are_one_are_warned_of_once():
    lines = []
    run(progress=lines.append)
    assert sum("the learners hardly differ" in line for line in lines) == 1
    lines.clear()
    run(progress=lines.append, settings=replace(ALL, kappa_max=1.0))
    assert not any("warning" in line for line in lines)


def test_shares_of_the_unlabeled_are_found_or_taken_as_given_and_called():
    unlabeled = make_samples(100, 2).take(np.flatnonzero(np.arange(100) % 10 != 1))  # 50 live, 40 dead
    assert run(unlabeled=unlabeled).shares == pytest.approx([5 / 9, 4 / 9])
    spread = np.random.default_rng(0).integers(0, 90, len(unlabeled))
    unlabeled.x[:] = unlabeled.x // 2 + spread[:, None, None]
    given = np.array([0.3, 0.7])
    found = run(unlabeled=unlabeled, shares=given)
    assert found.shares is given
    for logits in (found.both, *found.one):
        dead = logits(unlabeled.x).argmax(axis=1).mean()
        assert dead == pytest.approx(0.7, abs=0.02)


def test_both_are_as_sure_as_they_agree_and_never_surer_than_one_in_all():
    unlabeled = make_samples(40, 2)
    x = unlabeled.x

    def two_wrong(samples, round_index):
        return lambda y: (
            score(y) * np.where([(im == x[:4]).all((1, 2)).any() for im in y], -1, 1)[:, None]
        ).astype(np.float32)

    shares = np.array([0.5, 0.5])
    for fit_b, error in ((two_wrong, 4 / 40), (knows, 1 / 40)):
        found = run(unlabeled=unlabeled, fit_b=fit_b, shares=shares, settings=replace(ALL, max_rounds=1))
        assert found.rounds[0].disagreement == pytest.approx(error if fit_b is two_wrong else 0)
        p = softmax(found.both(x), 1.0)
        assert np.mean(1 - p.max(axis=1)) == pytest.approx(error, rel=0.02)
    assert found.both(x[:0]).shape == (0, 2)


def test_an_empty_class_is_named():
    only_live = make_samples(8, 5).take(np.arange(0, 8, 2))
    with pytest.raises(ConfigError, match=r"labeled samples have no dead .*expected some of each class"):
        run(only_live)


def test_nothing_unlabeled_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match=r"nothing is unlabeled; expected images .*lower --labels"):
        run(unlabeled=make_samples(0, 2))


def test_thresholds_rise_above_the_errors_of_held_out_labels():
    p = np.array([[0.99, 0.01], [0.97, 0.03], [0.95, 0.05], [0.08, 0.92]])
    wanted = {"precision_min": 0.95, "confidence_min": 0.9}
    assert precision_threshold(p, np.array([0, 0, 0, 1]), **wanted).tolist() == [0.9, 0.9]
    assert precision_threshold(p, np.array([0, 0, 1, 1]), **wanted).tolist() == [0.97, 0.9]
    assert precision_threshold(p, np.array([1, 0, 0, 0]), **wanted).tolist() == [np.inf, np.inf]


def test_the_most_certain_are_taken_class_by_class():
    label = np.array([0, 0, 0, 1, -1, 0])
    confidence = np.array([0.91, 0.95, 0.95, 0.92, 1.0, 0.99])
    assert select_trusted(label, confidence, np.array([0.5, 0.5]), 4) == {3: 1, 5: 0, 1: 0}
    assert select_trusted(label, confidence, np.array([0.9, 0.1]), 2) == {1: 0, 5: 0}
    assert select_trusted(label, confidence, np.array([0.9, 0.1]), 0) == {}


def test_overlap_compares_labels_too():
    assert jaccard({1: 0, 2: 1}, {1: 0, 2: 0}) == pytest.approx(1 / 3)
    assert jaccard({}, {}) == 1


def test_kappa_is_zero_for_independent_raters_and_one_for_equal():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert cohen_kappa(a, b) == pytest.approx(0)
    assert cohen_kappa(a, a) == 1


@pytest.mark.training
def test_features_of_a_turned_crop_are_the_same():
    from training.learners.features import measure_features

    x = make_samples(6, 1).x
    x[0] = 128
    x[1, :, :9] = 0  # beyond the border
    measured = measure_features(x)
    assert np.isfinite(measured).all()
    for turned in (x[:, ::-1], np.rot90(x, axes=(1, 2)), x.transpose(0, 2, 1)):
        assert measure_features(turned) == pytest.approx(measured, abs=1e-9)
    assert measure_features(x[:0]).shape == (0, measured.shape[1])


@pytest.mark.training
@pytest.mark.parametrize("name", ["fit_features", "fit_boosted"])
def test_trees_learn_texture(name):
    from training.learners import features

    fit = getattr(features, name)
    rng = np.random.default_rng(0)
    fine = rng.choice([98, 158], (20, 28, 28)).astype(np.uint8)
    coarse = rng.choice([98, 158], (20, 14, 14)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    x, y = np.concatenate([fine, coarse]), np.repeat([0, 1], 20)
    train = Samples(x[::2], y[::2], np.full(20, "g"), "train", "fake", CLASSES)
    said = fit(train, 0)(x[1::2])
    assert (said.argmax(axis=1) == y[1::2]).all()
    assert np.array_equal(said, fit(train, 0)(x[1::2]))
    assert fit(train, 0)(x[:0]).shape == (0, 2)
    more = replace(train, classes=("live", "early", "dead"), y=2 * train.y)
    assert (fit(more, 0)(x[1::2]).argmax(axis=1) == 2 * y[1::2]).all()  # early is never found
    more.x[::5], more.y[::5] = 128, 1
    assert fit(more, 0)(np.full((1, 28, 28), 128, np.uint8)).argmax() == 1


@pytest.mark.training
def test_features_say_that_they_have_no_network_to_export():
    from training.learners import open_learner

    with pytest.raises(ConfigError, match="no network to export as TFLite; expected station or table2"):
        open_learner("features")(2, 0.0)


def smuggle_turned_copy(judged, train):
    judged.x[0] = np.rot90(train.x[5])
    return judged


def smuggle_group(judged, train):
    judged.group[0] = train.group[5]
    return judged


def smuggle_generated(judged, train):
    judged = replace(judged, group=judged.group.astype("U20"))
    judged.group[0] = "generated"
    return judged


@pytest.mark.training
@pytest.mark.parametrize("n_labeled", [4, 50], ids=["unlabeled", "labeled"])
@pytest.mark.parametrize(
    ("smuggle", "found"),
    [
        (smuggle_turned_copy, "1 copies of images that are trained on"),
        (smuggle_group, r"1 groups that are trained on \(2-2\)"),
        (smuggle_generated, "generated images"),
    ],
)
def test_what_trains_cannot_be_smuggled_into_what_judges(smuggle, found, n_labeled, tmp_path):
    from training.recipes import Recipe
    from training.recipes.cotrain import RobustOptions, co_train_material_robust
    from training.recipes.make import Material
    from training.rendered import RENDERED_SCALE

    recipe = Recipe("fake", "cell", "test", "suspension", "brightfield", CLASSES, "fake")
    train = make_samples(60, 2)
    material = Material(train, make_samples(8, 4), RENDERED_SCALE, (), None)
    judged = smuggle(make_samples(8, 3), train)
    with pytest.raises(ConfigError, match=found):
        co_train_material_robust(recipe, material, judged, RobustOptions(n_labeled), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.training
def test_unlabeled_images_from_elsewhere_never_judge():
    from training.recipes.cotrain import RobustOptions, forget_labels

    train, judged, more = make_samples(40, 1), make_samples(8, 3), make_samples(8, 4)
    labeled, rest = forget_labels(train, judged, RobustOptions(10), more, quiet)
    assert (len(labeled), len(rest)) == (10, 38)
    with pytest.raises(ConfigError, match=r"4 groups that are trained on .* and 8 copies"):
        forget_labels(train, judged, RobustOptions(10), judged, quiet)
