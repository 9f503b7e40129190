"""`calid demo`: the whole path on a synthetic heart, with nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import calid
from calid.cli.console import frames_bar, say

__all__ = ["Demo"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Acquire a synthetic heart sparsely, reconstruct it, and compare with the truth."""

    out: Path = Path("demo")
    """Folder for the volume and the picture; made if missing."""
    seed: int = 3
    """Which synthetic heart."""
    dial: float | None = None
    """From 0, the mean, to 1, about as crisp as a real slice. The default comes with the
    weights."""

    def run(self) -> None:
        """Run the demonstration; the last line is the picture's path."""
        import numpy as np
        import torch

        from calid.baselines.rules import linear
        from calid.data.intensity import IntensityWindow
        from calid.data.phantom import HeartPhantom
        from calid.evaluation.metrics import psnr, sharpness, ssim
        from calid.io.atomic import check_folder
        from calid.io.sidecar import together
        from calid.report.figures import LIGHT, comparison, save_figure
        from calid.view.page import write_page
        from calid.view.scene import comparison_scene

        factor, gap = 7, 10.0
        wanted = calid.Generation(factor=factor, dial=self.dial)
        wanted.answer()  # refuses what cannot be asked, before any work
        check_folder(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        phantom = HeartPhantom(self.seed)
        stack = phantom.acquire(gap=gap)
        # The truth is what the scanner would give at every position: the same thick slices.
        truth = phantom.acquire(
            gap=gap / factor, noise=0.0, slices=(stack.n_slices - 1) * factor + 1
        )
        with frames_bar(1) as on_frame:
            volume = calid.reconstruct(stack, wanted, on_frame=on_frame)

        window = IntensityWindow.of(stack.data)
        hidden = ~volume.acquired
        expected = window.normalise(truth.data[0, hidden]).clip(0, 1)
        answers = {
            "linear": linear(
                window.normalise(stack.data[0]),
                stack.positions,
                volume.positions[hidden],
                stack.pixel_spacing,
            ).clip(0, 1),
            "CaLID": window.normalise(volume.data[0, hidden]).clip(0, 1),
        }
        say(f"{stack.n_slices} slices {gap:g} mm apart -> {len(volume.positions)} slices;")
        say("generated slices against the truth:")
        say(f"{'':8}{'PSNR dB':>9}{'SSIM':>8}{'sharpness':>11}")
        for name, images in answers.items():
            pair = torch.from_numpy(images), torch.from_numpy(expected)
            figures = [float(np.mean(f(*pair).numpy())) for f in (psnr, ssim, sharpness)]
            say(f"{name:8}{figures[0]:9.2f}{figures[1]:8.3f}{figures[2]:11.2f}")
        output = self.out / "reconstruction.nii.gz"
        picture = self.out / "comparison.png"
        figure = comparison(stack, volume, truth)
        page = self.out / "viewer.html"
        with together() as write:
            write(output, partial(calid.write_volume, volume))
            write(picture, partial(save_figure, figure, limit=LIGHT))
            write(page, partial(write_page, comparison_scene(stack, volume)))
        say(str(output))
        say(f"{page}  (open it in a browser)")
        say(str(picture))
