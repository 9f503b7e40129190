from __future__ import annotations

from functools import partialmethod

import nibabel as nib
import pytest

from calid.cli.main import main
from calid.data.phantom import HeartPhantom


@pytest.mark.slow
def test_the_demo_ends_with_a_picture_and_compares_with_linear(tmp_path, capsys, monkeypatch):
    # The whole heart is reconstructed by tests/end_to_end/test_wheel.py.
    small = partialmethod(HeartPhantom.acquire, field_of_view=96.0)
    monkeypatch.setattr(HeartPhantom, "acquire", small)
    main(["demo", "--out", str(tmp_path / "demo"), "--samples", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("comparison.png")
    assert (tmp_path / "demo" / "comparison.png").stat().st_size > 20_000
    assert "Research use only" in (tmp_path / "demo" / "viewer.html").read_text("utf-8")
    assert nib.load(tmp_path / "demo" / "reconstruction.nii.gz").ndim == 3
    table = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in lines[3:5]}
    assert set(table) == {"linear", "CaLID"}
