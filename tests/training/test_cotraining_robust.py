"""Co-training with labels that can be taken back: what is accepted, when it ends, what is kept out."""

from dataclasses import replace

import numpy as np
import pytest

from device.errors import ConfigError
from training.cotraining.robust import RobustSettings, co_train_robust
from training.cotraining.trust import cohen_kappa, jaccard, precision_threshold, select_trusted
from training.dataset import Samples

CLASSES = ("live", "dead")
SETTINGS = RobustSettings(growth=1.0)


def make_samples(n, seed, name=None):
    """The mean gray of an image tells its class: 50 live, 150 dead."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(0, 100, (n, 28, 28)).astype(np.uint8) + (100 * y[:, None, None]).astype(np.uint8)
    groups = np.array([f"{name or seed}-{i // 2}" for i in range(n)])
    return Samples(x, y.astype(np.intp), groups, "train", "fake", CLASSES)


def score(x, margin=4.0, *, flip=False):
    dead = np.where((x.mean(axis=(1, 2)) > 100) ^ flip, margin, -margin) / 2
    return np.stack([-dead, dead], axis=1).astype(np.float32)


def knows(samples, weights, round_index):
    return score


def hesitates(samples, weights, round_index):
    """Is sure of dead ones only, live ones stay below the threshold."""
    return lambda x: score(x) * np.where(x.mean(axis=(1, 2)) > 100, 1, 0.3)[:, None].astype(np.float32)


def opposite(samples, weights, round_index):
    return lambda x: score(x, flip=True)


def quiet(_line):
    pass


def run(
    labeled=None,
    unlabeled=None,
    val=None,
    *,
    fit_a=knows,
    fit_b=knows,
    settings=SETTINGS,
    progress=quiet,
    **more,
):
    return co_train_robust(
        make_samples(8, 1) if labeled is None else labeled,
        make_samples(20, 2) if unlabeled is None else unlabeled,
        make_samples(8, 3) if val is None else val,
        fit_a=fit_a,
        fit_b=fit_b,
        settings=settings,
        progress=progress,
        **more,
    )


def test_learners_that_never_agree_leave_nothing_pseudo_labeled():
    found = run(fit_b=opposite)
    assert found.pseudo == {}
    assert found.ending == "I_F unchanged"
    assert found.rounds[0].disagreement == 1
    assert found.rounds[0].kappa == pytest.approx(-1)


def test_learners_that_agree_label_everything_and_it_ends_unchanged():
    unlabeled = make_samples(20, 2)
    found = run(unlabeled=unlabeled, settings=replace(SETTINGS, full_weight_round=1))
    assert found.rounds[-1].n_pseudo_labeled == 20
    assert found.ending == "I_F unchanged"
    assert [step.n_pseudo_labeled for step in found.rounds] == [8, 16, 20, 20]  # the limit grows by |I_L|


def test_i_f_grows_by_a_share_of_the_labels_and_by_the_prior_of_classes():
    labeled = make_samples(8, 1)
    labeled = labeled.take(np.array([0, 2, 4, 6, 1, 3]))  # 4 live, 2 dead
    found = run(labeled, settings=RobustSettings(growth=0.5, max_rounds=1))
    assert found.rounds[0].n_pseudo_labeled == 3
    assert found.rounds[0].per_class == {"live": 2, "dead": 1}
    assert found.ending == "round limit"


def test_agreement_alone_is_not_enough():
    found = run(fit_b=hesitates)
    assert found.rounds[0].disagreement == 0
    assert found.rounds[0].per_class["live"] == 0
    assert found.rounds[0].per_class["dead"] > 0


def test_a_label_is_taken_back_when_a_learner_changes_its_mind():
    def wavers(samples, weights, round_index):
        # once it has learned from I_F it no longer believes the dead ones among the 20 unlabeled
        doubts = np.float32(0.1 if round_index else 1)
        return lambda x: score(x) * np.where((x.mean(axis=(1, 2)) > 100) & (len(x) == 20), doubts, 1)[:, None]

    found = run(fit_b=wavers, settings=replace(SETTINGS, max_rounds=2))
    assert found.rounds[0].per_class["dead"] == 4
    assert found.rounds[1].per_class["dead"] == 0
    assert found.rounds[1].revoked == 4


@pytest.mark.parametrize(("fit_a", "fit_b"), [(knows, hesitates), (knows, opposite)])
def test_order_of_learners_does_not_matter(fit_a, fit_b):
    one, other = run(fit_a=fit_a, fit_b=fit_b), run(fit_a=fit_b, fit_b=fit_a)
    assert one.pseudo == other.pseudo
    assert one.temperatures == other.temperatures[::-1]
    assert [step.n_pseudo_labeled for step in one.rounds] == [step.n_pseudo_labeled for step in other.rounds]


def test_equal_seeds_give_the_same_labels():
    def random(samples, weights, round_index):
        rng = np.random.default_rng(round_index)
        return lambda x: score(x) * rng.uniform(0.5, 1.5, (len(x), 1)).astype(np.float32)

    one, other = run(fit_a=random), run(fit_a=random)
    assert one.pseudo == other.pseudo
    assert one.rounds == other.rounds
    assert len(one.pseudo) > 0


def test_a_restless_learner_is_ended_by_the_round_limit():
    def restless(samples, weights, round_index):
        rng = np.random.default_rng(round_index)
        return lambda x: (
            score(x) * rng.uniform(1, 2, (len(x), 1)).astype(np.float32) if len(x) > 8 else score(x)
        )

    found = run(fit_a=restless, settings=RobustSettings(max_rounds=5), unlabeled=make_samples(200, 2))
    assert len(found.rounds) == 5
    assert found.ending == "round limit"


def test_labels_that_hardly_change_end_it_as_settled():
    def flickers(samples, weights, round_index):
        """Is sure of the first unlabeled image in every other round."""
        return lambda x: (
            score(x) * np.where((np.arange(len(x)) == 0) & (len(x) == 200), round_index % 2, 1)[:, None]
        )

    found = run(fit_a=flickers, unlabeled=make_samples(200, 2), settings=RobustSettings(growth=50))
    assert [step.n_pseudo_labeled for step in found.rounds] == [199, 200, 199]
    assert [step.revoked for step in found.rounds] == [0, 0, 1]
    assert found.ending == "I_F settled"


def test_a_harmful_round_is_rolled_back_to_the_best_and_the_second_ends_it():
    seen = []

    def spoiled(samples, weights, round_index):
        """Unlearns all as soon as it is given a pseudo-label."""
        seen.append(len(samples))
        return lambda x: score(x, flip=len(samples) > 8)

    found = run(fit_a=spoiled, fit_b=lambda s, w, r: lambda x: score(x, flip=len(s) > 8))
    assert found.ending == "rolled back twice"
    assert [step.rolled_back for step in found.rounds] == [False, True, True]
    assert seen == [8, 16, 12]  # 8 pseudo-labels at first, half as many after the roll-back
    assert found.best_round == 0
    assert found.pseudo == {}


def test_pseudo_labels_gain_weight_by_round_and_weigh_their_confidence():
    seen = []

    def spying(samples, weights, round_index):
        seen.append(weights[8:])
        return score

    run(fit_a=spying, settings=replace(SETTINGS, max_rounds=3))
    assert len(seen[0]) == 0
    p = 1 / (1 + np.exp(-4.0))
    assert seen[1] == pytest.approx(np.full(8, 2 / 5 * p), abs=1e-5)
    assert seen[2] == pytest.approx(np.full(16, 3 / 5 * p), abs=1e-5)


def test_unusable_images_get_no_label():
    unlabeled = make_samples(20, 2)
    first = unlabeled.x[:10].copy()
    found = run(
        unlabeled=unlabeled, usable=lambda x: ~np.array([(image == first).all((1, 2)).any() for image in x])
    )
    assert found.rounds[-1].n_candidates == 10
    assert min(found.pseudo) == 10


def test_labels_of_the_unlabeled_are_never_looked_at():
    hidden = make_samples(20, 2)
    hidden.y[:] = -1
    assert set(run(unlabeled=hidden).pseudo.values()) == {0, 1}


def test_learners_that_are_one_are_warned_of_once():
    lines = []
    run(progress=lines.append)
    assert sum("the learners hardly differ" in line for line in lines) == 1
    lines.clear()
    run(fit_b=opposite, progress=lines.append)
    assert not any("warning" in line for line in lines)


def smuggle_turned_copy(val, unlabeled):
    val.x[0] = np.rot90(unlabeled.x[5])
    return val


def smuggle_group(val, unlabeled):
    val.group[0] = unlabeled.group[5]
    return val


def smuggle_generated(val, unlabeled):
    val = replace(val, group=val.group.astype("U20"))
    val.group[0] = "generated"
    return val


@pytest.mark.parametrize(
    ("smuggle", "found"),
    [
        (smuggle_turned_copy, "1 copies of images that are trained on"),
        (smuggle_group, r"1 groups that are trained on \(2-2\)"),
        (smuggle_generated, "generated images"),
    ],
)
def test_what_trains_cannot_be_smuggled_into_validation(smuggle, found):
    unlabeled = make_samples(20, 2)
    with pytest.raises(ConfigError, match=found):
        run(unlabeled=unlabeled, val=smuggle(make_samples(8, 3), unlabeled))


def test_pseudo_labeled_images_never_judge_the_next_round():
    unlabeled = make_samples(20, 2)
    found = run(unlabeled=unlabeled)
    with pytest.raises(ConfigError, match="groups that are trained on"):
        run(unlabeled=unlabeled, val=found.pseudo_labeled)


@pytest.mark.parametrize("part", ["labeled", "val"])
def test_an_empty_class_is_named(part):
    only_live = make_samples(8, 5).take(np.arange(0, 8, 2))
    with pytest.raises(ConfigError, match=r"labeled samples have no dead .*expected some of each class"):
        run(**{part: only_live})


def test_nothing_unlabeled_is_no_error():
    found = run(unlabeled=make_samples(0, 2))
    assert found.pseudo == {}
    assert found.ending == "I_F unchanged"


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
def test_boosted_trees_learn_texture_and_heed_weights():
    from training.learners.features import fit_features

    rng = np.random.default_rng(0)
    fine = rng.choice([98, 158], (20, 28, 28)).astype(np.uint8)
    coarse = rng.choice([98, 158], (20, 14, 14)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    x, y = np.concatenate([fine, coarse]), np.repeat([0, 1], 20)
    train = Samples(x[::2], y[::2], np.full(20, "g"), "train", "fake", CLASSES)
    said = fit_features(train, np.ones(20), 0)(x[1::2])
    assert (said.argmax(axis=1) == y[1::2]).all()
    assert np.array_equal(said, fit_features(train, np.ones(20), 0)(x[1::2]))
    wrong = Samples(
        np.tile(train.x, (2, 1, 1)), np.r_[train.y, 1 - train.y], np.full(40, "g"), "train", "fake", CLASSES
    )
    light = fit_features(wrong, np.repeat([1.0, 0.01], 20), 0)(x[1::2])
    assert (light.argmax(axis=1) == y[1::2]).all()
    assert fit_features(train, np.ones(20), 0)(x[:0]).shape == (0, 2)


@pytest.mark.training
def test_features_say_that_they_have_no_network_to_export():
    from training.learners import open_learner

    with pytest.raises(ConfigError, match="no network to export as TFLite; expected station or table2"):
        open_learner("features")(2, 0.0)


@pytest.mark.training
def test_labels_of_one_group_and_judges_that_train_are_refused_before_any_fit(tmp_path):
    from training.recipes import Recipe
    from training.recipes.cotrain import RobustOptions, co_train_material_robust
    from training.recipes.make import Material
    from training.rendered import RENDERED_SCALE

    recipe = Recipe("fake", "cell", "test", "suspension", "brightfield", CLASSES, "fake")

    def refused(train, judged, match):
        material = Material(train, make_samples(8, 2), RENDERED_SCALE, (), None)
        with pytest.raises(ConfigError, match=match):
            co_train_material_robust(recipe, material, judged, RobustOptions(16), tmp_path / "run", quiet)
        assert not (tmp_path / "run").exists()

    train = make_samples(60, 1)
    one_group = replace(train, group=np.full(60, "g"))
    refused(one_group, make_samples(8, 3), "16 labeled samples are of one group; expected at least two")
    refused(train, train.take(np.arange(4)), "the samples that judge hold 2 groups that are trained on")
