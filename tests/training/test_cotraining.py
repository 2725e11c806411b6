"""Algorithm 1 with fakes: the misprints stay corrected, and the loop ends."""

import numpy as np
import pytest

from training.cotraining import co_train
from training.cotraining.paper import choose_labeled, split_groups
from training.dataset.samples import Samples

CLASSES = ("live", "dead")


def make_samples(n, seed=0, split="train"):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(0, 100, (n, 28, 28)).astype(np.uint8) + (100 * y[:, None, None]).astype(np.uint8)
    return Samples(x, y.astype(np.intp), np.array([f"g{i // 2}" for i in range(n)]), split, "fake", CLASSES)


def bright_is_dead(samples, round_index):
    return lambda x: (x.mean(axis=(1, 2)) > 100).astype(np.intp)


def opposite(samples, round_index):
    return lambda x: (x.mean(axis=(1, 2)) <= 100).astype(np.intp)


def nothing(known, round_index):
    return known.take(np.zeros(0, np.intp))


def test_learners_that_never_agree_leave_nothing_pseudo_labeled():
    # line 5 as printed applies learner 1 twice and would accept every image
    found = co_train(
        make_samples(6), make_samples(20, 1), fit_a=bright_is_dead, fit_b=opposite, generate=nothing
    )
    assert found.pseudo == {}
    assert found.unchanged
    assert len(found.rounds) == 1


def test_learners_that_agree_label_everything_in_one_round():
    unlabeled = make_samples(20, 1)
    found = co_train(make_samples(6), unlabeled, fit_a=bright_is_dead, fit_b=bright_is_dead, generate=nothing)
    assert found.pseudo == dict(enumerate(unlabeled.y.tolist()))
    assert found.rounds[0].agreement == 1
    assert found.rounds[0].per_class == {"live": 10, "dead": 10}


def slow_learner(samples, round_index):
    """Agrees with `bright_is_dead` on the first images only, on more of them each round."""
    truth = bright_is_dead(samples, round_index)

    def predict(x):
        said = truth(x)
        said[3:] = 1 - said[3:]
        return said

    return predict


def test_accepted_images_leave_the_unlabeled_and_count_once():
    seen = []

    def spying(samples, round_index):
        seen.append(len(samples))
        return bright_is_dead(samples, round_index)

    found = co_train(make_samples(6), make_samples(10, 1), fit_a=spying, fit_b=slow_learner, generate=nothing)
    assert [step.n_unlabeled for step in found.rounds] == [10, 7, 4, 1]
    assert seen == [6, 9, 12, 15]  # I_L + I_F, each item once: line 12 as printed would add old items again
    assert sorted(found.pseudo) == list(range(10))


def test_round_limit_ends_a_slow_run():
    found = co_train(
        make_samples(6),
        make_samples(10, 1),
        fit_a=bright_is_dead,
        fit_b=slow_learner,
        generate=nothing,
        max_rounds=2,
    )
    assert len(found.rounds) == 2
    assert not found.unchanged


def test_order_of_learners_does_not_matter():
    arguments = {"generate": nothing, "max_rounds": 2}
    one = co_train(
        make_samples(6), make_samples(10, 1), fit_a=bright_is_dead, fit_b=slow_learner, **arguments
    )
    other = co_train(
        make_samples(6), make_samples(10, 1), fit_a=slow_learner, fit_b=bright_is_dead, **arguments
    )
    assert one.pseudo == other.pseudo
    assert one.rounds == other.rounds


def test_generated_images_train_the_learners_but_are_never_kept():
    def generate(known, round_index):
        return Samples(known.x[:4], known.y[:4], np.full(4, "generated"), "train", "generated", CLASSES)

    sizes = []

    def spying(samples, round_index):
        sizes.append(int(np.sum(samples.group == "generated")))
        return opposite(samples, round_index)

    found = co_train(
        make_samples(6), make_samples(10, 1), fit_a=spying, fit_b=bright_is_dead, generate=generate
    )
    assert sizes == [4]
    assert len(found.pseudo_labeled) == 0


def test_labels_of_the_unlabeled_are_never_looked_at():
    hidden = make_samples(10, 1)
    hidden.y[:] = -1
    found = co_train(make_samples(6), hidden, fit_a=bright_is_dead, fit_b=bright_is_dead, generate=nothing)
    assert set(found.pseudo.values()) == {0, 1}


def test_few_labels_hold_every_class():
    samples = make_samples(40)
    samples.y[:] = 0
    samples.y[:3] = 1
    labeled, rest = choose_labeled(samples, 5, seed=1)
    assert len(labeled) == 5
    assert len(rest) == 35
    assert labeled.count()["dead"] >= 2


@pytest.mark.parametrize("seed", range(5))
def test_validation_shares_no_group_with_training(seed):
    train, val = split_groups(make_samples(40), 0.2, seed)
    assert not set(train.group) & set(val.group)
    assert len(train) + len(val) == 40
    assert len(val) == 8
    assert set(train.y) == {0, 1}
