"""The main job: a sparse stack in, a dense volume out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from calid.errors import CalidWarning
from calid.geometry.pixels import PixelGrid
from calid.inference.densify import choose_factor, fill, plan
from calid.inference.memory import Demand, fit_memory
from calid.inference.model import FEWEST_FRAMES, Model, model_for
from calid.inference.options import Generation
from calid.inference.record import record
from calid.models.motion import ONE_FRAME, Frames
from calid.segmentation.heart import checked, heart_region
from calid.stack import SliceStack, Volume

__all__ = ["heartbeat", "reconstruct"]

COVERED = 0.85
"""Share of the time between R waves from which a film counts as whole."""

DEFAULTS = Generation()
"""Default options."""


def reconstruct(
    stack: SliceStack,
    wanted: Generation = DEFAULTS,
    *,
    model: Model | None = None,
    uncertainty: bool = False,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> Volume:
    """Reconstruct a dense volume, for every frame, from the sparse slices of a stack.

    Films of at least `calid.inference.model.FEWEST_FRAMES` frames are taken for one heartbeat:
    their frames are registered together and mixed by tau_1. Its last frame is followed by the
    first unless `heartbeat` finds that a part of the beat is missing.

    Parameters
    ----------
    stack
        From `calid.read`, or `SliceStack.of_array`.
    wanted
        How dense, and what lies between the slices.
    model
        From `calid.load_model`, for many stacks; else what ``wanted`` names is loaded.
    uncertainty
        Keep the standard deviation over samples; draws 8 if ``wanted`` does not say how many.
    on_frame
        Called with the number of frames done.

    Returns
    -------
    Volume
        Acquired slices are those of the stack bit for bit, moved by whole pixels only if
        ``wanted.fix_shifts``. ``provenance`` says how it was made.

    Raises
    ------
    UsageError
        If an option is out of range, or options contradict each other.
    ResourceError
        If memory is too small; raised before any work.
    GeometryError
        If gaps are too uneven.

    Warns
    -----
    CalidWarning
        If the heart is shifted in some slices, or a film is not a whole heartbeat.
    """
    preset = wanted if model is None else replace(wanted, preset=model.preset)
    answer = preset.answer(uncertainty)
    factor = choose_factor(stack, wanted.factor, wanted.spacing)
    model = model or model_for(wanted)
    answer = model.resolved(answer)
    demand = Demand.of(stack, factor, answer.samples, uncertainty)
    at_once = fit_memory(demand, wanted.max_memory, model.device)
    stack, shifts = checked(stack, model.segmenter, wanted.fix_shifts)
    # Outside of a region all samples would be equal, and their standard deviation 0.
    whole = wanted.region == "whole" or answer.samples > 0
    region = None if whole else heart_region(stack, model.segmenter)
    together = stack.n_frames >= FEWEST_FRAMES and not wanted.frame_by_frame
    frames = heartbeat(stack) if together else ONE_FRAME
    method = partial(model.film, answer=answer, at_once=at_once, frames=frames, region=region)
    volume = fill(stack, method, plan(stack, factor), uncertainty, on_frame)
    grid = PixelGrid.of(stack.shape, stack.pixel_spacing)
    shown = None if region is None else region.native(grid)
    volume = replace(volume, frames_together=frames.count, region=shown)
    facts = record(stack, volume, model, answer)
    facts["settings"]["whole_heartbeat"] = frames.periodic if together else None
    facts |= {"request": preset.request(uncertainty), "shifts": shifts}
    return replace(volume, provenance=facts)


def heartbeat(stack: SliceStack) -> Frames:
    """How the frames of a film follow each other.

    If the file gives the time between R waves, the times decide whether the film is a whole
    heartbeat; otherwise the images do.

    Warns
    -----
    CalidWarning
        If the film is not a whole heartbeat.
    """
    if stack.cycle:
        times = stack.frame_times
        covered = float(times[-1] - times[0] + np.median(np.diff(times)))
        frames = Frames(stack.n_frames, periodic=covered >= COVERED * stack.cycle)
        seen = f"its frames cover {covered:.2g} s of {stack.cycle:.2g} s"
    else:
        frames = Frames.of(stack.data)
        seen = "its last frame is far from its first"
    if not frames.periodic:
        warnings.warn(
            f"{stack.source}: the film is not a whole heartbeat: {seen}. The last frame is not "
            "taken to be followed by the first.",
            CalidWarning,
            stacklevel=3,
        )
    return frames
