"""`calid evaluate`: how good is it, on your own stacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from calid.cli.console import frames_bar, say
from calid.errors import DataError, UsageError
from calid.inference.options import Reading

if TYPE_CHECKING:
    from calid.evaluation.methods import Roster
    from calid.evaluation.protocol import Evaluation, Protocol
    from calid.evaluation.tables import Results

__all__ = ["Evaluate"]

ON_PIXELS = ("hidden-slices", "downstream", "film")
"""Protocols that compare in pixels of the images, or of 1.5 mm if asked to."""

LABELLED = ("hidden-slices", "downstream", "uncertainty")
"""Protocols that read manual labels."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Hide what is known, reconstruct it with every method, and compare with the truth.

    - hidden-slices: every second real slice is hidden.
    - downstream: the same, segmented and compared with manual labels.
    - film: slices of a cine stack are hidden in all frames.
    - dense: a dense volume is made sparse, and compared everywhere.
    - uncertainty: does the spread of samples say how wrong they are?
    - cost: time and memory for a whole heart.
    - cost-film: the same for a film of 30 frames.

    Manual labels are X_label.nii.gz beside X.nii.gz. DATA is the word phantoms for cost and
    cost-film, and for dense on synthetic hearts. An evaluation that was stopped goes on when
    it is started again with the same OUT.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """A stack, or a folder of NIfTI files, zips and DICOM
    folders, searched recursively; or phantoms, for dense, cost
    and cost-film."""
    out: Path
    """Folder for summary.json, per_subject.csv, table.md and pictures; made if missing."""
    protocol: Literal[
        "hidden-slices", "downstream", "film", "dense", "uncertainty", "cost", "cost-film"
    ] = "hidden-slices"
    """Which test."""
    methods: str = "all"
    """all, classical, or names separated by commas; the
    protocol uncertainty always uses calid-average."""
    baselines: Path | None = None
    """Folder with the weights of the learned baselines, as calid train leaves them."""
    weights: Path | None = None
    """Folder with your own weights, as calid train leaves them;
    the package supplies missing ones. Default: the released
    weights."""
    predictions: Path | None = None
    """Folder that keeps answers for reuse. Default: OUT/predictions."""
    grid: Literal["own", "1.5mm"] = "own"
    """Pixels in which hidden slices are compared: those of the
    images, as a user gets them, or 1.5 mm."""
    label_map: str | None = None
    """Which values manual labels have, if they are others:
    LV=1,MYO=2,RV=3 for M&Ms and UK Biobank."""
    max_subjects: int | None = None
    """Stop after this many subjects."""
    seed: int = 0
    """Of the samplers."""
    device: str = "auto"
    """auto, cpu or cuda."""
    reading: Reading = field(default_factory=Reading)

    def run(self) -> None:
        """Evaluate and print the table."""
        from calid.io.atomic import check_folder

        if self.label_map is not None and self.protocol not in LABELLED:
            raise UsageError(
                "--label-map", f"{self.protocol} reads no labels.", "Leave the option out."
            )
        for folder in (self.out, self.predictions):
            if folder is not None:
                check_folder(folder)
        if self.protocol in ("cost", "cost-film"):
            self._cost()
        else:
            self._quality()
        say(str(self.out / "table.md"))

    def _quality(self) -> None:
        from calid.baselines.learned import LEARNED
        from calid.evaluation.methods import AVERAGE, CLASSICAL, FRAMEWISE, Roster, record
        from calid.evaluation.protocol import evaluate
        from calid.evaluation.tables import by_group, by_subject, markdown, summarise, write_results
        from calid.evaluation.uncertainty import rank_correlation
        from calid.report.figures import LIGHT, calibration_figure, save_figure

        spreads = self.protocol == "uncertainty"
        if spreads and self.methods not in ("all", AVERAGE):
            raise UsageError(
                "--methods", f"Only {AVERAGE} has samples that differ.", "Leave the option out."
            )
        files = self._files()
        roster = Roster(self.seed, self.device, self.baselines, self.weights)
        useful = [n for n in roster.available() if n != FRAMEWISE or self.protocol == "film"]
        named = {"all": useful, "classical": list(CLASSICAL)}
        names = named.get(self.methods, self.methods.split(","))
        contenders = [roster.sampler()] if spreads else roster.contenders(names)
        protocol = self._protocol(roster, ceiling=not spreads and bool({*names} - {*CLASSICAL}))
        self.out.mkdir(parents=True, exist_ok=True)
        predictions = self.predictions or self.out / "predictions"
        rows = len(contenders) + len(protocol.ceilings)
        with frames_bar(len(files) * rows, "evaluating") as on_answer:
            found = evaluate(protocol, files, contenders, predictions, on_answer)
        results = by_subject(protocol, found.rows)
        facts = {
            "data": "/".join(self.data.resolve().parts[-2:]) if self.data.exists() else "phantoms",
            "n_images": found.targets,
            "seed": self.seed,
            "grid": self.grid if self.protocol in ON_PIXELS else None,
            "label_map": self.label_map,
            "reading": self.reading.facts(),
            **record(contenders, self.baselines, self.weights, device=self.device),
        }
        summary = summarise(protocol, results, by_group(found.rows), facts)
        if spreads:
            samples, figures = found.rows[AVERAGE], summary["methods"][AVERAGE]
            figures["rank"] = rank_correlation(samples)
            picture = calibration_figure(samples, figures)
            pictures = {"calibration.png": partial(save_figure, picture, limit=LIGHT)}
        else:
            pictures = _pictures(protocol, found, results)
        write_results(results, summary, pictures, self.out)
        say(markdown(summary))
        if self.methods == "all" and not spreads:
            for name in (n for n in LEARNED if n not in names):
                say(f"left out, no weights: {name} (calid train {name})")

    def _files(self) -> list[Path]:
        from calid.data.bank import subject_of
        from calid.evaluation.dense import sources
        from calid.io.find import find_inputs

        if self.max_subjects is not None and self.max_subjects < 1:
            raise UsageError("--max-subjects", "Nothing would be left.", "Use 1 or more.")
        if self.protocol == "dense":
            files = sources(self.data)
        elif self.data.exists():
            files = list(find_inputs(self.data)) if self.data.is_dir() else [self.data]
        else:
            raise DataError(self.data, "There is no such file or folder.", "Check the path.")
        if not files:
            raise DataError(
                self.data,
                "The folder holds no stack.",
                "Give a folder of NIfTI files or of DICOM folders.",
            )
        subjects = sorted({subject_of(f) for f in files})[: self.max_subjects]
        return [f for f in files if subject_of(f) in subjects]

    def _protocol(self, roster: Roster, ceiling: bool) -> Protocol:
        from calid.evaluation.dense import dense
        from calid.evaluation.downstream import downstream
        from calid.evaluation.hidden_slices import film, hidden_slices
        from calid.evaluation.uncertainty import uncertainty
        from calid.io.labels import parse_label_map
        from calid.segmentation.segment import load_segmenter

        autoencoder = roster.load("default") if ceiling else None
        reader, own = self.reading.read, self.grid == "own"
        labels = parse_label_map(self.label_map)
        if self.protocol == "uncertainty":
            return uncertainty(reader, own, labels)
        if self.protocol in ("downstream", "dense"):
            label = load_segmenter(self.device).label_slices
            if self.protocol == "dense":
                return dense(label, autoencoder, reader=reader)
            return downstream(label, autoencoder, reader, own, labels)
        if self.protocol == "film":
            return film(autoencoder, reader, own)
        return hidden_slices(autoencoder, reader, own, labels)

    def _cost(self) -> None:
        from calid.evaluation.cost import (
            FILM,
            FILM_METHODS,
            HEART,
            METHODS,
            cost_table,
            measure_cost,
        )
        from calid.evaluation.methods import weights_sha256
        from calid.io.sidecar import together, write_json, write_text

        self.out.mkdir(parents=True, exist_ok=True)
        film = self.protocol == "cost-film"
        methods, workload = (FILM_METHODS, FILM) if film else (METHODS, HEART)
        with frames_bar(len(methods), "timing") as on_method:
            costs = measure_cost(methods, workload, self.device, on_method)
        table, facts = cost_table(costs), {"weights_sha256": weights_sha256(), **costs}
        with together() as write:
            write(self.out / "table.md", partial(write_text, table))
            write(self.out / "summary.json", partial(write_json, facts))
        say(table)


def _pictures(protocol: Protocol, found: Evaluation, results: Results) -> dict[str, partial[None]]:
    """What writes gains over linear, and examples: of films an M-mode and a heartbeat too."""
    from calid.report.beat import save_beat
    from calid.report.figures import (
        LIGHT,
        example_sheets,
        m_mode_sheet,
        paired_differences,
        save_figure,
    )

    differences = paired_differences(results, protocol.headline, list(protocol.ceilings))
    figures, beats = {"differences.png": differences}, {}
    for n, truth in enumerate(found.truths, 1):
        films = {"truth": truth, **{name: a[n - 1] for name, a in found.answers.items()}}
        middle = {name: film[:, film.shape[1] // 2] for name, film in films.items()}
        images, errors = example_sheets({name: film[0] for name, film in middle.items()})
        figures |= {f"examples-{n}.png": images, f"errors-{n}.png": errors}
        if len(truth) > 1:
            figures[f"m-mode-{n}.png"] = m_mode_sheet(middle)
            beats[f"beat-{n}.png"] = partial(save_beat, films)
    return {n: partial(save_figure, f, limit=LIGHT) for n, f in figures.items()} | beats
