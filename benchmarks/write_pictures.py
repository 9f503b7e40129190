"""Draw the pictures of the concept pages from synthetic hearts and the released weights.

    python benchmarks/write_pictures.py [--out FOLDER] [--field-of-view MM] [--samples K]

Nothing is downloaded; by default the pictures go to docs/pictures.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from calid import (
    Answer,
    HeartPhantom,
    IntensityWindow,
    Model,
    SliceStack,
    linear,
    load_model,
    registration,
)
from calid.report.figures import LIGHT, save_figure

ROOT = Path(__file__).resolve().parents[1]
HEART, GAP, THICKNESS, WIDE_GAP = 3, 10.0, 8.0, 20.0
Images = NDArray[np.float32]


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--field-of-view", type=float, default=192.0, help="edge in mm")
    parser.add_argument("--samples", type=int, default=8, help="for the uncertainty")
    options = parser.parse_args()
    draw(options.out, options.field_of_view, options.samples)


def draw(out: Path, view: float, samples: int) -> None:
    """Write every picture to a folder, for images of an edge of ``view`` mm."""
    out.mkdir(parents=True, exist_ok=True)
    save = partial(save_figure, limit=LIGHT)
    model = load_model()
    save(geometry(view), out / "geometry.png")
    save(latent(model, view), out / "latent.png")
    # Slices 20 mm apart, as in the hidden-slice test, so that neighbours differ visibly.
    heart = HeartPhantom(HEART)
    stack = heart.acquire(gap=WIDE_GAP, slices=4, field_of_view=view)
    truth = heart.acquire(gap=WIDE_GAP / 4, slices=13, noise=0.0, field_of_view=view)
    window = IntensityWindow.of(stack.data)
    dense, exact = window.normalise(truth.data[0]), window.normalise(stack.data[0])
    targets = np.array([30.0])
    save(between(model, exact, stack, dense[6], targets), out / "between.png")
    save(spread(model, exact, stack, dense, samples), out / "spread.png")


def geometry(view: float) -> Figure:
    """A long-axis cut: the heart, where slices lie in it, and what remains of it."""
    heart = HeartPhantom(HEART)
    fine = heart.acquire(gap=1.0, thickness=0.0, noise=0.0, slices=81, field_of_view=view)
    thick = heart.acquire(gap=GAP, thickness=THICKNESS, noise=0.0, slices=9, field_of_view=view)
    row = fine.shape[2] // 2
    cut, slabs = fine.data[0, :, row], thick.data[0, :, row]
    figure = Figure(figsize=(10, 1.95), facecolor="black", layout="constrained")
    axes = figure.subplots(1, 3)
    titles = ("the heart, cut along its axis", "slices: thick, with gaps", "what is acquired")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, color="white", fontsize=10)
        axis.axis("off")
    top = float(np.percentile(cut.astype(np.float64), 99.5))
    for axis in axes[:2]:
        axis.imshow(cut, cmap="gray", vmin=0, vmax=top, extent=(0, view, 80.5, -0.5))
    for place in thick.positions:
        box = (0, place - THICKNESS / 2), view, THICKNESS
        axes[1].add_patch(Rectangle(*box, facecolor="tab:red", edgecolor="white", alpha=0.4))
    extent = (0, view, 80 + GAP / 2, -GAP / 2)
    axes[2].imshow(slabs, cmap="gray", vmin=0, vmax=top, extent=extent, interpolation="nearest")
    for axis in axes:
        axis.set_ylim(80 + GAP / 2, -GAP / 2)
    return figure


@torch.no_grad()
def latent(model: Model, view: float) -> Figure:
    """Stage 1: a slice, its latent, and the slice decoded from it."""
    stack = HeartPhantom(HEART).acquire(gap=GAP, slices=2, start=30.0, field_of_view=view)
    image = IntensityWindow.of(stack.data).normalise(stack.data[0])
    seen = torch.from_numpy(image[:1, None]).to(model.device)
    sides = [side // 16 * 16 for side in image.shape[1:]]
    channels = model.autoencoder.encode(seen[..., : sides[0], : sides[1]])[0].float().cpu().numpy()
    decoded = model.recode(image, stack.pixel_spacing)[0]
    figure = Figure(figsize=(10, 2.75), facecolor="black", layout="constrained")
    parts = figure.subplots(1, 4)
    _show(parts[0], image[0], "slice x")
    _show(parts[1], _tiles(channels), f"latent z, {len(channels)} channels", -3, 3)
    _show(parts[2], decoded, "decoded D(E(x))")
    _show(parts[3], np.abs(decoded - image[0]), "error, 5 times as bright", 0, 0.2)
    return figure


def between(
    model: Model, images: Images, stack: SliceStack, truth: Images, targets: NDArray[np.float64]
) -> Figure:
    """The middle of a gap of 20 mm, by blending, by registration, and by the model."""
    given = images, stack.positions, targets, stack.pixel_spacing
    answer = model.between(*given, Answer())[0, 0]
    sample = model.between(*given, Answer(samples=1))[0, 0]
    figure = Figure(figsize=(10, 5.1), facecolor="black", layout="constrained")
    axes = figure.subplots(2, 4)
    _show(axes[0, 0], images[1], "slice 10 mm above")
    _show(axes[1, 0], images[2], "slice 10 mm below")
    _show(axes[0, 1], linear(*given)[0], "linear")
    _show(axes[1, 1], registration(*given)[0], "registration")
    _show(axes[0, 2], answer, "CaLID")
    _show(axes[1, 2], sample, "CaLID, one sample")
    _show(axes[0, 3], truth, "truth")
    _show(axes[1, 3], np.abs(answer - truth), "error of CaLID", 0, 0.3)
    return figure


def spread(model: Model, images: Images, stack: SliceStack, truth: Images, samples: int) -> Figure:
    """Uncertainty: two samples, their standard deviation and the error, and both along z."""
    places = np.arange(len(truth)) * WIDE_GAP / 4
    hidden = np.arange(len(truth)) % 4 != 0
    given = images, stack.positions, places[hidden], stack.pixel_spacing
    drawn = model.between(*given, Answer(samples=samples))
    deviation, error = np.zeros(truth.shape), np.zeros(truth.shape)
    deviation[hidden] = drawn.std(axis=0, ddof=1)
    error[hidden] = np.abs(drawn.mean(axis=0) - truth[hidden])
    middle = int(np.flatnonzero(hidden).searchsorted(6))
    figure = Figure(figsize=(10, 5.6), facecolor="black", layout="constrained")
    parts = figure.subplot_mosaic(
        [["a", "b", "s", "e"], ["p", "p", "p", "p"]], height_ratios=(3, 2)
    )
    _show(parts["a"], drawn[0, middle], f"one of {samples} samples")
    _show(parts["b"], drawn[1, middle], "another")
    _show(parts["s"], deviation[6], f"standard deviation of {samples}", 0, 0.3)
    _show(parts["e"], error[6], "error of their average", 0, 0.3)
    axis = parts["p"]
    axis.set_facecolor("black")
    for values, name in ((deviation, "standard deviation"), (error, "error of the average")):
        axis.plot(places, values.mean((1, 2)), marker="o", label=name)
    for place in stack.positions:
        axis.axvline(place, color="gray", linewidth=0.8)
    axis.set_xlabel("position along the stack (mm); lines: acquired slices", color="white")
    axis.tick_params(colors="white")
    axis.legend(facecolor="black", labelcolor="white", edgecolor="gray")
    for spine in axis.spines.values():
        spine.set_color("gray")
    return figure


def _tiles(channels: Images) -> Images:
    """Channels ``(count, h, w)`` as one picture in rows of four."""
    count, height, width = channels.shape
    spare = -count % 4
    padded = np.pad(channels, ((0, spare), (1, 1), (1, 1)), constant_values=-3)
    rows = padded.reshape(-1, 4, height + 2, width + 2)
    return rows.transpose(0, 2, 1, 3).reshape(-1, 4 * (width + 2))


def _show(axis: Axes, image: Images, title: str, low: float = 0.0, high: float = 1.0) -> None:
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    axis.set_title(title, color="white", fontsize=9)
    axis.axis("off")


if __name__ == "__main__":
    main()
