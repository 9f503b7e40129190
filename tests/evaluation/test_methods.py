"""The roster: which methods there are, what they need, and what their answers depend on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calid.baselines.cubic import cubic
from calid.baselines.learned import LEARNED, new_baseline, save_baseline
from calid.baselines.linear import linear
from calid.baselines.nearest import nearest
from calid.baselines.registration import registration
from calid.errors import UsageError, WeightsError
from calid.evaluation import methods
from calid.evaluation.case import Case
from calid.evaluation.contender import Contender
from calid.evaluation.methods import CLASSICAL, FRAMEWISE, NAMES, Roster
from calid.inference.load import load_model
from calid.inference.model import Model, Sampling
from calid.io.sidecar import sha256
from calid.models.interpolator import Interpolator, InterpolatorConfig, LatentFiller
from calid.models.store import save_interpolator
from calid.weights import weights_path

OURS = ("calid-2d", "calid", "calid-mean", "calid-sample", "calid-average")
RELEASED = [n for n in NAMES if n not in LEARNED]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Presets that were loaded, and for which device; the networks are not real."""
    seen: list[tuple[str, str]] = []

    def load(preset: str, device: str, weights: Path | None) -> Model:
        seen.append((preset, device))
        steps = {"default": 7, "paper": 50}[preset]
        filler = SimpleNamespace(default_steps=steps, reach=2, sees_films=False)
        return Model(SimpleNamespace(), filler, preset, torch.device("cpu"))  # type: ignore[arg-type]

    monkeypatch.setattr(methods, "load_model", load)
    return seen


def one(name: str, seed: int = 0, baselines: Path | None = None) -> Contender:
    (contender,) = Roster(seed, "cpu", baselines).contenders([name])
    return contender


def write(folder: Path, name: str, seed: int = 0) -> Path:
    """Weights of a tiny learned baseline."""
    torch.manual_seed(seed)
    path = folder / f"{name}.safetensors"
    save_baseline(new_baseline(name, channels=3, widths=(8, 16)), path, {})
    return path


def test_contenders_come_in_the_order_of_the_tables(loads):
    roster = Roster(0, "cpu")
    shuffled = [*RELEASED[::-1], "linear"]
    assert [c.name for c in roster.contenders(shuffled)] == RELEASED
    assert roster.contenders([]) == []
    assert set(CLASSICAL) | set(LEARNED) | set(OURS) < set(NAMES)


def test_classical_names_are_their_methods_and_need_no_network(loads):
    contenders = Roster(0, "cpu").contenders(CLASSICAL)
    assert [c.method for c in contenders] == [nearest, linear, cubic, registration]
    assert [dict(c.settings) for c in contenders] == [{}] * 4
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
        assert f"calid train baseline --method {name}" in caught.value.remedy
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


@pytest.mark.slow
@pytest.mark.usefixtures("precision")
def test_label_maps_come_from_the_segmentation_where_they_are_asked_for(loads, tmp_path):
    name = "diffusion-autoencoder"
    path = write(tmp_path, name)
    without = one(name, baselines=tmp_path).identity
    sizes = {"channels": 8, "widths": (8, 16)}
    save_baseline(new_baseline(name, **sizes, morphology=True), path, {})
    roster = Roster(0, "cpu", tmp_path)
    roster.load = lambda preset: load_model(preset, "cpu")
    (contender,) = roster.contenders([name])
    assert sha256(weights_path("segmentation")) in contender.identity
    assert sha256(weights_path("segmentation")) not in without
    images = np.random.default_rng(0).random((2, 32, 32), np.float32)
    answer = contender.method(images, np.array([0.0, 10.0]), np.array([5.0]), (1.5, 1.5))
    assert answer.shape == (1, 32, 32)
    assert np.isfinite(answer).all()


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
    contenders = {c.name: dict(c.settings) for c in Roster(5, "cpu").contenders(RELEASED)}
    assert contenders["calid"] == {"samples": 0, "steps": 7, "temperature": 1.0, "seed": 5}
    assert contenders["calid-mean"] == {"samples": 0, "steps": 7, "temperature": 0.0, "seed": 5}
    assert contenders["calid-sample"] == {"samples": 1, "steps": 7, "temperature": 1.0, "seed": 5}
    assert contenders["calid-average"] == {"samples": 8, "steps": 7, "temperature": 1.0, "seed": 5}
    assert contenders["paper"] == {"samples": 1, "steps": 50, "temperature": 1.0, "seed": 5}
    assert contenders["latent-linear"]["samples"] == contenders["latent-spherical"]["samples"] == 0


def test_identities_tell_methods_apart_and_last(loads, tmp_path):
    for name in LEARNED:
        write(tmp_path, name)
    one_, again = (
        [c.identity for c in Roster(0, "cpu", tmp_path).contenders(NAMES)] for _ in range(2)
    )
    assert one_ == again
    assert len(set(one_)) == len(NAMES)


def test_identities_of_samplers_change_with_the_seed(loads):
    for name in ("paper", "calid-sample", "calid-average"):
        assert one(name, seed=0).identity != one(name, seed=1).identity, name
    for name in CLASSICAL:
        assert one(name, seed=0).identity == one(name, seed=1).identity, name


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
                "paper": {"paper"},
                "autoencoder": set(RELEASED) - set(CLASSICAL),
            }[changed]
        )


def test_identities_change_with_the_code(monkeypatch):
    before = one("linear").identity
    monkeypatch.setattr(methods, "_code", lambda: "other")
    assert one("linear").identity != before


def test_answers_are_the_average_of_the_samples_that_the_name_says(loads, monkeypatch):
    asked: list[tuple[str, Sampling]] = []

    def between(self, images, positions, targets, spacing, sampling):
        asked.append((self.preset, sampling))
        samples = np.arange(max(1, sampling.samples), dtype=np.float32)
        return (
            np.ones((1, len(targets), *images.shape[1:]), np.float32) * samples[:, None, None, None]
        )

    monkeypatch.setattr(Model, "between", between)
    images, positions = np.zeros((3, 4, 5), np.float32), np.array([0.0, 10.0, 20.0])
    for name, samples, preset in (
        ("calid", 0, "default"),
        ("calid-average", 8, "default"),
        ("paper", 1, "paper"),
        ("latent-spherical", 0, "latent-spherical"),
    ):
        answer = one(name, seed=3).method(images, positions, np.array([5.0, 12.0]), (1.5, 1.5))
        assert answer.shape == (2, 4, 5)
        np.testing.assert_allclose(answer, 3.5 if samples == 8 else 0.0)
        assert asked.pop() == (preset, Sampling(samples, seed=3))


def test_latent_and_learned_methods_have_their_own_filler_and_share_the_autoencoder(
    loads, tmp_path, monkeypatch
):
    write(tmp_path, "regression")
    used: list[tuple[object, LatentFiller]] = []

    def between(self, images, positions, targets, spacing, sampling):
        used.append((self.autoencoder, self.interpolator))
        return np.zeros((1, len(targets), *images.shape[1:]), np.float32)

    monkeypatch.setattr(Model, "between", between)
    roster = Roster(0, "cpu", tmp_path)
    names = ("latent-linear", "latent-spherical", "regression", "calid")
    for contender in roster.contenders(names):
        contender.method(np.zeros((2, 4, 4)), np.array([0.0, 1.0]), np.array([0.5]), (1.5, 1.5))
    kinds = [type(filler).__name__ for _, filler in used]
    assert kinds[:3] == ["LatentLinear", "LatentSpherical", "RegressionInterpolator"]
    assert used[3][1] is roster.load("default").interpolator
    assert {id(autoencoder) for autoencoder, _ in used} == {id(roster.load("default").autoencoder)}
    assert not used[2][1].training  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_method_of_networks_answers_in_either_precision(precision, tmp_path):
    for name in LEARNED:
        torch.manual_seed(0)
        sizes = {"channels": 8, "widths": (8, 16)}
        save_baseline(new_baseline(name, **sizes), tmp_path / f"{name}.safetensors", {})
    roster = Roster(0, "cpu", tmp_path)
    images = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    given = images, np.array([0.0, 10.0]), np.array([5.0]), (1.5, 1.5)
    names = ("latent-linear", "latent-spherical", *LEARNED, "calid", "calid-sample")
    for contender in roster.contenders(names):
        answer = contender.method(*given)
        assert answer.shape == (1, 32, 32), contender.name
        assert np.isfinite(answer).all(), contender.name
        assert str(precision) in contender.identity


def film_weights(folder: Path, heads: int = 2) -> Path:
    """Weights of the default preset, with layers that know films unless there are no heads."""
    torch.manual_seed(0)
    model = Interpolator(InterpolatorConfig(8, (8, 16), temporal=heads))
    save_interpolator(model, folder / "default.safetensors", {})
    return folder


def test_frame_by_frame_is_a_method_of_its_own_where_weights_know_films(tmp_path):
    assert FRAMEWISE in Roster(0, "cpu", weights=film_weights(tmp_path)).available()
    assert FRAMEWISE not in Roster(0, "cpu", weights=film_weights(tmp_path, heads=0)).available()


@pytest.mark.slow
def test_films_are_answered_together_but_for_the_framewise_row(tmp_path, monkeypatch):
    asked: list[tuple[str, int]] = []

    def between(self, images, positions, targets, spacing, sampling):
        asked.append(("frame", 1))
        return np.zeros((2, len(targets), *images.shape[1:]), np.float32)

    def film(self, images, positions, targets, spacing, sampling):
        asked.append(("film", len(images)))
        for place in range(len(targets)):
            shape = (2, len(images), 1, *images.shape[2:])
            values = np.arange(2, dtype=np.float32) + 10 * place
            yield slice(place, place + 1), np.ones(shape, np.float32) * values[:, *[None] * 4]

    monkeypatch.setattr(Model, "between", between)
    monkeypatch.setattr(Model, "film", film)
    roster = Roster(0, "cpu", weights=film_weights(tmp_path))
    framewise, ours, linear_ = (
        roster.contenders([name])[0] for name in (FRAMEWISE, "calid", "linear")
    )
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
