"""The report of the paper's recipe: `report.md` with its figures, the paper's numbers beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.cotraining import describe
from training.dataset import Dataset
from training.evaluation.detection import detection_scores
from training.export.acceptance import ANY
from training.gan import write_gan_figures

if TYPE_CHECKING:
    from training.recipes.paper import PaperOutcome

NOT_EVIDENCE = (
    "The paper's accuracy of 92 % is what 34 right of 37 validation images give (Wilson 95 %: 79 to 97 %), "
    "and about 30 of those 37 are generated images: 34/37 is not evidence about real images. Nor are our "
    "figures where they stand on as few."
)
COMPARED = (
    ("in the paper", "here", "compared"),
    ("---", "---", "---"),
    ("Table 1", "the same chain, the same scores", "the scores; its 15 images are not published"),
    ("Figures 2 to 6, stages", "`nanotox count --method paper --stages DIR`", "by eye: other images"),
    ("Figures 7 to 11, drawings", "nothing to run", "no"),
    ("Figures 12 to 14, samples", "`gan-*.png` of the same steps", "by eye: other images"),
    ("log lines of the GAN", "`gan-*-loss.png` and the table below", "losses and accuracy, of other images"),
    ("Algorithm 1", "its rounds, misprints corrected", "no: the paper prints no figure of it"),
    ("Table 2", "the same layers", "the number of parameters, exactly"),
    ("92 %, loss 0.43", "real images kept from everything", "no: most of its 37 are generated"),
    ("toxic or non-toxic", "the rule stated below", "no: the paper states no limit"),
)
"""What of the paper can be compared with what stands here, and why not."""
PAPER_LOG = {
    100: "0.098, 98.2 %, 3.399",
    200: "0.272, 89.1 %, 2.390",
    300: "0.308, 87.7 %, 2.795",
    700: "0.308, 87.7 %, 2.795 (the line of step 300 again)",
    800: "0.372, 84.0 %, 2.897",
    900: "0.303, 88.2 %, 2.476",
    1300: "0.489, 75.6 %, 1.415",
    1400: "0.485, 76.1 %, 1.412",
    1500: "0.478, 77.0 %, 1.437",
}
PAPER_COUNT = {
    "tp": 814,
    "fn": 14,
    "fp": 11,
    "precision": 0.987,
    "recall": 0.983,
    "f1": 0.985,
    "jaccard": 0.970,
}


def write_report(out: Path, outcome: "PaperOutcome", dataset: Dataset) -> None:
    """Write `report.md` and its figures to `out`."""
    names = [
        name
        for k, gan in outcome.run.gans.items()
        for name in write_gan_figures(out, outcome.labeled.classes[k], gan)
    ]
    names += [_write_curves(out, outcome), _write_confusion(out, outcome)]
    names += ["quality.png"] if outcome.quality else []
    parts = [
        "# The paper's recipe, run here",
        (
            f"Images: {dataset.folder.name} ({dataset.info.origin}), {len(outcome.files)} counted. "
            f"Unit: {outcome.settings.unit}. Research use only."
        ),
        "## What can be compared",
        "\n".join(f"| {' | '.join(row)} |" for row in COMPARED),
        "## Counting (Table 1)",
        _counting(outcome),
        _count_table(outcome),
        "## Algorithm 1",
        (
            f"Labels by counting: {outcome.label_rule}. Labeled: {outcome.labeled.count()}; "
            f"unlabeled: {outcome.n_unlabeled}."
        ),
        "\n".join(f"- {describe(step)}" for step in outcome.run.co_training.rounds),
        _pseudo(outcome),
        "## GAN (Figures 12 to 14)",
        (
            "At equilibrium both losses are 0.693 and the discriminator is right half the time; the paper "
            "ends at D 0.478, 77 %, G 1.437."
        ),
        _gan_logs(outcome),
        "The paper does not say what its images are worth. Ours, beside real ones that the GANs never saw:",
        "\n".join(f"- {line}" for line in outcome.quality) or "- no images were generated",
        "## Classifier (Table 2)",
        _classifier(outcome),
        NOT_EVIDENCE,
        "## Figures",
        "\n".join(f"![{name}]({name})" for name in names),
    ]
    (out / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _counting(outcome: "PaperOutcome") -> str:
    tp, fp, fn = (sum(getattr(r.matches[ANY], name) for r in outcome.results) for name in ("tp", "fp", "fn"))
    ours = detection_scores(tp, fp, fn)
    rows = [f"| {name} | {paper:g} | {_figure(getattr(ours, name))} |" for name, paper in PAPER_COUNT.items()]
    head = "| | paper, 15 images | here |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n\nThe paper's 97 % is its Jaccard index, 814/839."


def _count_table(outcome: "PaperOutcome") -> str:
    rows = [
        "| image | total | correct | undetected | intruded | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for file, result in zip(outcome.files, outcome.results, strict=True):
        m = result.matches[ANY]
        scores = detection_scores(m.tp, m.fp, m.fn)
        precision, recall = _figure(scores.precision), _figure(scores.recall)
        rows.append(f"| {file} | {m.tp + m.fn + m.fp} | {m.tp} | {m.fn} | {m.fp} | {precision} | {recall} |")
    return "\n".join(rows)


def _gan_logs(outcome: "PaperOutcome") -> str:
    names = [outcome.labeled.classes[k] for k in outcome.run.gans]
    ours = [{point.step: point for point in gan.log} for gan in outcome.run.gans.values()]
    last = max((step for points in ours for step in points), default=0)
    rows = [
        f"| step | paper: D loss, accuracy, G loss | {' | '.join(names)} |",
        "|---" * (2 + len(names)) + "|",
    ]
    for step in sorted({*PAPER_LOG, last}):
        points = [log.get(step) for log in ours]
        said = [f"{p.d_loss:.3f}, {p.d_accuracy:.1%}, {p.g_loss:.3f}" if p else "-" for p in points]
        rows.append(f"| {step} | {PAPER_LOG.get(step, '-')} | {' | '.join(said)} |")
    return "\n".join(rows)


def _pseudo(outcome: "PaperOutcome") -> str:
    if outcome.pseudo_right is None:
        return "Nothing was pseudo-labeled."
    return f"Of the pseudo-labels {outcome.pseudo_right:.0%} agree with the labels by counting."


def _classifier(outcome: "PaperOutcome") -> str:
    run, judged = outcome.run, outcome.judged
    table = _confusion(outcome)
    right, n = int(table.trace()), int(table.sum())
    share = f" ({right / n:.0%})" if n else ""
    parameters = f"{run.fitted.model.count_params():,}"
    lines = [
        f"TC has {parameters} parameters (Table 2: 355,202).",
        f"It was fitted on {len(run.train)} real and {len(run.generated)} generated images.",
        "",
        f"- own validation, {n} real labeled images kept from GANs and learners: {right} right{share}",
        "- the paper: 92 % right, loss 0.43",
    ]
    if judged:
        lines.append(
            f"- true labels of split val, {judged.n} samples that nothing here saw: balanced accuracy "
            f"{_figure(judged.balanced_accuracy)}, F1 of the dead or toxic {_figure(judged.f1_dead)}, AUC "
            f"{_figure(judged.auc)}, NLL {judged.nll:.3f}"
        )
    parity = outcome.bundle.card.parity or {}
    lines.append(
        f"- int8: agreement with float {_figure(parity.get('agreement'))} on {parity.get('n')} samples"
    )
    return "\n".join(lines)


def _confusion(outcome: "PaperOutcome") -> NDArray[np.int64]:
    """Return how many validation images of each label (row) TC says are of each class."""
    val, n_classes = outcome.run.val, len(outcome.labeled.classes)
    table = np.zeros((n_classes, n_classes), np.int64)
    if len(val):
        np.add.at(table, (val.y, outcome.run.fitted.logits(val.x).argmax(axis=1)), 1)
    return table


def _write_curves(out: Path, outcome: "PaperOutcome") -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="NLL (nats)", title="Classifier")
    for key in ("loss", "nll"):
        axes.plot([epoch[key] for epoch in outcome.run.fitted.history], label=key)
    axes.legend()
    figure.savefig(out / "classifier-loss.png", dpi=120)
    return "classifier-loss.png"


def _write_confusion(out: Path, outcome: "PaperOutcome") -> str:
    from matplotlib.figure import Figure

    table, classes = _confusion(outcome), outcome.labeled.classes
    figure = Figure(figsize=(4, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="said", ylabel="label", title="Validation of TC")
    axes.imshow(table, cmap="Greys")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    for (row, col), count in np.ndenumerate(table):
        axes.text(col, row, str(count), ha="center", va="center", color="tab:red")
    figure.savefig(out / "confusion.png", dpi=120)
    return "confusion.png"


def _figure(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
