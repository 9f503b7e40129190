from __future__ import annotations

import nibabel as nib

from calid.cli.main import main


def test_the_demo_ends_with_a_picture_and_beats_linear(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path / "demo"), "--samples", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("comparison.png")
    assert (tmp_path / "demo" / "comparison.png").stat().st_size > 20_000
    assert "Research use only" in (tmp_path / "demo" / "viewer.html").read_text("utf-8")
    assert nib.load(tmp_path / "demo" / "reconstruction.nii.gz").ndim == 3
    table = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in lines[3:5]}
    assert set(table) == {"linear", "CaLID"}
