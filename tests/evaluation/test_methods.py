"""The roster: which methods there are, what they need, and what their answers depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CHANNELS, tiny_model

from calid.baselines.learned import LEARNED, new_baseline, save_baseline
from calid.baselines.registration import blend, registration
from calid.baselines.rules import cubic, linear, nearest
from calid.errors import UsageError, WeightsError
from calid.evaluation import methods
from calid.evaluation.methods import CLASSICAL, FRAMEWISE, NAMES, Roster
from calid.evaluation.protocol import Case, Contender
from calid.inference.model import Model
from calid.inference.options import Answer
from calid.weights import weights_path

OURS = ("calid-2d", "calid", "calid-mean", "calid-crisp", "calid-sample", "calid-average")
PAPER = ("paper", "paper-average")
RELEASED = [n for n in NAMES if n not in LEARNED]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Presets that were loaded, and for which device; the networks are tiny."""
    seen: list[tuple[str, str]] = []

    def load(preset: str, device: str, weights: Path | None) -> Model:
        seen.append((preset, device))
        return tiny_model(preset)

    monkeypatch.setattr(methods, "load_model", load)
    return seen


def one(name: str, seed: int = 0, baselines: Path | None = None) -> Contender:
    (contender,) = Roster(seed, "cpu", baselines).contenders([name])
    return contender


def write(folder: Path, name: str, seed: int = 0) -> Path:
    """Weights of a tiny learned baseline."""
    torch.manual_seed(seed)
    path = folder / f"{name}.safetensors"
    save_baseline(new_baseline(name, channels=CHANNELS, widths=(8, 16)), path, {})
    return path


def test_contenders_come_in_the_order_of_the_tables(loads):
    roster = Roster(0, "cpu")
    shuffled = [*RELEASED[::-1], "linear"]
    assert [c.name for c in roster.contenders(shuffled)] == RELEASED
    assert roster.contenders([]) == []
    assert set(CLASSICAL) | set(LEARNED) | set(OURS) < set(NAMES)


def test_classical_names_are_their_methods_and_need_no_network(loads):
    contenders = Roster(0, "cpu").contenders(CLASSICAL)
    assert [c.method for c in contenders] == [nearest, linear, cubic, registration, blend]
    assert [dict(c.settings) for c in contenders] == [{}] * 5
    assert loads == []


def test_an_unknown_name_is_a_usage_error(loads):
    with pytest.raises(UsageError, match="'magic' is not a method") as caught:
        Roster(0, "cpu").contenders(["linear", "magic"])
    assert "calid-mean" in caught.value.remedy
    assert loads == []


@pytest.mark.parametrize("name", LEARNED)
def test_a_baseline_without_weights_says_how_to_train_it(loads, tmp_path, name):
    for folder in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(WeightsError, match=f"^{name}.safetensors") as caught:
            one(name, baselines=folder)
        assert f"calid train {name}" in caught.value.remedy
        assert "--baselines" in caught.value.remedy


def test_available_are_those_whose_weights_are_there(loads, tmp_path):
    assert Roster(0, "cpu").available() == list(RELEASED)
    assert Roster(0, "cpu", tmp_path).available() == list(RELEASED)
    write(tmp_path, LEARNED[1])
    assert Roster(0, "cpu", tmp_path).available() == [n for n in NAMES if n != LEARNED[0]]
    assert [c.name for c in Roster(0, "cpu", tmp_path).contenders([LEARNED[1]])] == [LEARNED[1]]
    assert loads == [("default", "cpu")]


def test_damaged_weights_of_a_baseline_are_refused(loads, tmp_path):
    (tmp_path / "regression.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError):
        one("regression", baselines=tmp_path)
    write(tmp_path, "diffusion-autoencoder").rename(tmp_path / "regression.safetensors")
    with pytest.raises(WeightsError, match="diffusion-autoencoder"):
        one("regression", baselines=tmp_path)


def test_every_network_is_loaded_once(loads, tmp_path):
    for name in LEARNED:
        write(tmp_path, name)
    roster = Roster(0, "cpu", tmp_path)
    roster.contenders(NAMES)
    assert sorted(loads) == [("default", "cpu"), ("paper", "cpu")]
    roster.contenders(NAMES)
    roster.load("default")  # for the ceiling
    assert len(loads) == 2
    Roster(0, "cpu").load("default")
    assert len(loads) == 3


def test_settings_say_how_a_method_samples(loads):
    found = {c.name: dict(c.settings) for c in Roster(5, "cpu").contenders(RELEASED)}
    config = tiny_model().interpolator.config
    assert found["calid"] == {
        "dial": config.dial, "samples": 0, "steps": config.transport_steps, "seed": 5
    }  # fmt: skip
    assert [found[n]["dial"] for n in ("calid-mean", "calid-crisp")] == [0, 1]
    assert [found[n]["samples"] for n in ("calid-sample", "calid-average", *PAPER)] == [1, 8, 1, 8]
    assert {found[n]["dial"] for n in ("calid-sample", "calid-average", *PAPER)} == {None}
    assert found["latent-linear"] == found["latent-spherical"] == {"steps": 1}


def test_identities_last_and_change_with_method_seed_and_code(loads, tmp_path, monkeypatch):
    for name in LEARNED:
        write(tmp_path, name)
    one_, again = (
        [c.identity for c in Roster(0, "cpu", tmp_path).contenders(NAMES)] for _ in range(2)
    )
    assert one_ == again
    assert len(set(one_)) == len(NAMES)
    other = Roster(1, "cpu", tmp_path).contenders(NAMES)
    drawn = {c.name for c, identity in zip(other, one_, strict=True) if c.identity != identity}
    assert drawn == {*PAPER, *OURS}
    monkeypatch.setattr(methods, "_code", lambda: "other")
    assert not set(one_) & {c.identity for c in Roster(0, "cpu", tmp_path).contenders(NAMES)}


def test_identities_change_with_the_weights(loads, tmp_path):
    write(tmp_path, "regression", seed=0)
    before = one("regression", baselines=tmp_path).identity
    write(tmp_path, "regression", seed=1)
    assert one("regression", baselines=tmp_path).identity != before

    def identities(weights: Path | None = None) -> dict[str, str]:
        roster = Roster(0, "cpu", weights=weights)
        return {c.name: c.identity for c in roster.contenders(RELEASED)}

    released = identities()
    for changed in ("default", "paper", "autoencoder"):
        own = tmp_path / changed
        own.mkdir()
        (own / f"{changed}.safetensors").write_bytes(b"other weights")
        for name in ("autoencoder", "default", "paper"):
            if not (own / f"{name}.safetensors").exists():
                (own / f"{name}.safetensors").symlink_to(weights_path(name))
        differing = {n for n, identity in identities(own).items() if identity != released[n]}
        assert (
            differing
            == {
                "default": set(OURS),
                "paper": set(PAPER),
                "autoencoder": set(RELEASED) - set(CLASSICAL),
            }[changed]
        )


def test_answers_are_the_average_of_the_samples_that_the_name_says(loads, monkeypatch):
    asked: list[tuple[str, Answer]] = []

    def between(self, images, positions, targets, spacing, answer):
        asked.append((self.preset, answer))
        samples = np.arange(max(1, answer.samples), dtype=np.float32)
        return (
            np.ones((1, len(targets), *images.shape[1:]), np.float32) * samples[:, None, None, None]
        )

    monkeypatch.setattr(Model, "between", between)
    images, positions = np.zeros((3, 4, 5), np.float32), np.array([0.0, 10.0, 20.0])
    for name, samples, preset in (
        ("calid", 0, "default"),
        ("calid-average", 8, "default"),
        ("paper", 1, "paper"),
        ("paper-average", 8, "paper"),
    ):
        answer = one(name, seed=3).method(images, positions, np.array([5.0, 12.0]), (1.5, 1.5))
        assert answer.shape == (2, 4, 5)
        np.testing.assert_allclose(answer, 3.5 if samples == 8 else 0.0)
        used, found = asked.pop()
        assert (used, found.samples, found.seed) == (preset, samples, 3)


@pytest.mark.usefixtures("precision")
def test_rules_in_latent_space_share_the_autoencoder_and_answer(loads, tmp_path):
    for name in LEARNED:
        write(tmp_path, name)
    roster = Roster(0, "cpu", tmp_path)
    images = np.random.default_rng(0).random((3, 30, 34), np.float32)
    given = images, np.array([0.0, 10.0, 20.0]), np.array([5.0, 7.5, 12.0]), (1.5, 1.5)
    names = ("latent-linear", "latent-spherical", *LEARNED)
    for contender in roster.contenders(names):
        answer = contender.method(*given)
        assert answer.shape == (3, 30, 34), contender.name
        assert np.isfinite(answer).all(), contender.name
        assert 0 <= answer.min() <= answer.max() <= 1.5, contender.name
    assert loads == [("default", "cpu")]


def test_a_line_between_latents_is_the_mean_of_both_at_the_middle(loads):
    model = Roster(0, "cpu").load("default")
    images = np.random.default_rng(0).random((2, 32, 32), np.float32)
    found = one("latent-linear").method(images, np.array([0.0, 10.0]), np.array([5.0]), (1.5, 1.5))
    latents = model.encode(torch.from_numpy(images))
    expected = model.decode(latents.mean(0, keepdim=True)).clamp(0, 1.5).numpy()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_latents_of_another_autoencoder_are_refused(loads, tmp_path):
    path = tmp_path / "regression.safetensors"
    save_baseline(new_baseline("regression", channels=5, widths=(8, 16)), path, {})
    with pytest.raises(WeightsError, match="5 channels"):
        one("regression", baselines=tmp_path)


@pytest.mark.slow
def test_every_answer_of_the_presets_comes_in_either_precision(precision):
    roster = Roster(0, "cpu")
    images = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    given = images, np.array([0.0, 10.0]), np.array([5.0]), (1.5, 1.5)
    for contender in roster.contenders(("paper", "calid", "calid-mean", "calid-sample")):
        answer = contender.method(*given)
        assert answer.shape == (1, 32, 32), contender.name
        assert np.isfinite(answer).all(), contender.name
        assert str(precision) in contender.identity


def test_films_are_answered_together_but_for_the_framewise_row(loads, monkeypatch):
    asked: list[tuple[str, int]] = []

    def between(self, images, positions, targets, spacing, answer):
        asked.append(("frame", 1))
        return np.zeros((2, len(targets), *images.shape[1:]), np.float32)

    def film(self, images, positions, targets, spacing, answer):
        asked.append(("film", len(images)))
        for place in range(len(targets)):
            shape = (2, len(images), 1, *images.shape[2:])
            values = np.arange(2, dtype=np.float32) + 10 * place
            yield slice(place, place + 1), np.ones(shape, np.float32) * values[:, *[None] * 4]

    monkeypatch.setattr(Model, "between", between)
    monkeypatch.setattr(Model, "film", film)
    framewise, ours, linear_ = (one(name) for name in (FRAMEWISE, "calid", "linear"))
    assert framewise.identity != ours.identity
    assert linear_.film is framewise.film is None

    def case(frames: int) -> Case:
        images = np.zeros((frames, 3, 4, 5), np.float32)
        places = np.array([0.0, 10.0, 20.0])
        return Case("a", "a", images, places, np.array([5.0, 12.0]), images[:, :2], (1.5, 1.5))

    answer = ours.answer(case(5))
    assert answer.shape == (5, 2, 4, 5)
    np.testing.assert_allclose(answer[:, 0], 0.5)
    np.testing.assert_allclose(answer[:, 1], 10.5)
    assert asked == [("film", 5)]
    asked.clear()
    assert framewise.answer(case(5)).shape == (5, 2, 4, 5)
    assert ours.answer(case(3)).shape == (3, 2, 4, 5)
    assert asked == [("frame", 1)] * 8
