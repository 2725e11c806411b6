"""The bundle store finds, verifies and refuses."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from device import models
from device.errors import ModelError

TINY = Path(__file__).parent / "data" / "tiny-cell"


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "copied"))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped bundles with one bundle in it, not trusted."""
    folder = tmp_path / "shipped"
    shutil.copytree(TINY, folder / "tiny-cell")
    monkeypatch.setattr(models, "bundles_folder", lambda: folder)
    return folder


def test_a_folder_is_read_whole():
    bundle = models.find_bundle(TINY)
    assert bundle.name == "tiny-cell"
    assert bundle.model == (TINY / "model.tflite").read_bytes()
    assert bundle.golden.inputs.shape == (24, 28, 28)
    assert bundle.golden.logits.shape == (24, 3)
    assert not bundle.golden.logits.flags.writeable


def test_trust_comes_from_a_list_only():
    stranger = models.find_bundle(TINY)
    assert not stranger.id.trusted
    assert models.find_bundle(TINY, trusted=[stranger.id.sha256]).id.trusted


def test_a_shipped_bundle_is_found_by_name_and_trusted_by_the_shipped_list(shipped):
    sha256 = models.find_bundle(TINY).id.sha256
    (shipped / "TRUSTED").write_text(f"# comment\n\n{sha256}  tiny-cell\n")
    assert models.list_bundles() == ["tiny-cell"]
    assert models.find_bundle("tiny-cell").id.trusted


def test_an_unknown_name_lists_the_known_ones(shipped):
    with pytest.raises(ModelError, match=r"no model 'nonsense'; expected .* \(tiny-cell\)"):
        models.find_bundle("nonsense")


def test_a_missing_default_names_what_would_fit(shipped):
    with pytest.raises(ModelError, match=r"no model is shipped for assay adherent in phase.*--model"):
        models.default_bundle("adherent", "phase")


@pytest.mark.parametrize("name", ["model.tflite", "card.json", "golden.npz"])
def test_one_flipped_bit_is_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} has SHA-256 .*; expected .*damaged or changed"):
        models.find_bundle(copied)


@pytest.mark.parametrize("n_bytes", [0, 8, 5000])
def test_a_cut_off_model_is_refused_before_it_is_parsed(copied, n_bytes):
    (copied / "model.tflite").write_bytes((copied / "model.tflite").read_bytes()[:n_bytes])
    with pytest.raises(ModelError, match=r"model\.tflite has SHA-256"):
        models.find_bundle(copied)


@pytest.mark.parametrize("name", ["model.tflite", "card.json", "golden.npz", "SHA256SUMS"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} cannot be read .*a bundle needs"):
        models.find_bundle(copied)


def test_checksums_must_cover_every_file_and_no_other(copied):
    sums = (copied / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copied / "SHA256SUMS").write_text("".join(sums[:2]))
    with pytest.raises(ModelError, match=r"does not list golden\.npz"):
        models.find_bundle(copied)
    (copied / "SHA256SUMS").write_text("".join(sums) + f"{'0' * 64}  ../../etc/passwd\n")
    with pytest.raises(ModelError, match=r"has the line .*passwd"):
        models.find_bundle(copied)


def test_what_is_written_is_read_back(tmp_path):
    bundle = models.find_bundle(TINY)
    sha256 = models.write_bundle(tmp_path, card=bundle.card, model=bundle.model, golden=bundle.golden)
    again = models.find_bundle(tmp_path, trusted=[sha256])
    assert again.card == bundle.card
    assert again.id.trusted
    np.testing.assert_array_equal(again.golden.features, bundle.golden.features)


def test_a_card_that_could_not_be_read_back_is_never_written(tmp_path):
    bundle = models.find_bundle(TINY)
    card = dataclasses.replace(bundle.card, temperature=-1.0)
    with pytest.raises(ModelError, match=r"temperature is -1\.0; expected more than 0"):
        models.write_bundle(tmp_path / "new", card=card, model=bundle.model, golden=bundle.golden)
    assert not (tmp_path / "new").exists()


def test_golden_inputs_must_fit_the_card(tmp_path):
    bundle = models.find_bundle(TINY)
    golden = dataclasses.replace(bundle.golden, features=bundle.golden.features[:, :5])
    models.write_bundle(tmp_path, card=bundle.card, model=bundle.model, golden=golden)
    with pytest.raises(
        ModelError, match=r"features are int8 of shape \(24, 5\); expected int8 of shape \(24, 16\)"
    ):
        models.find_bundle(tmp_path)


def test_a_file_with_right_checksum_that_is_no_model_is_refused(tmp_path):
    bundle = models.find_bundle(TINY)
    models.write_bundle(tmp_path, card=bundle.card, model=b"12345678", golden=bundle.golden)
    with pytest.raises(ModelError, match=r"is no TFLite model"):
        models.find_bundle(tmp_path)


def test_a_trust_list_says_which_line_is_wrong(tmp_path):
    (tmp_path / "TRUSTED").write_text("# fine\nABCDEF phase-cell\n")
    with pytest.raises(ModelError, match=r"TRUSTED line 2 starts with 'ABCDEF'"):
        models.read_trust_list(tmp_path / "TRUSTED")
    assert models.read_trust_list(tmp_path / "none") == frozenset()


def test_the_field_model_is_the_shipped_one_unless_another_or_none_is_asked_for(shipped):
    assert models.field_bundle(None) is None  # none is shipped here
    assert models.field_bundle("none") is None
    with pytest.raises(ModelError, match="tiny-cell is a cell model; expected a field model, or 'none'"):
        models.field_bundle("tiny-cell")
    (shipped / "tiny-cell").rename(shipped / "field")
    with pytest.raises(ModelError, match="expected a field model"):  # that of the name `field` is taken
        models.field_bundle(None)
