from __future__ import annotations

import gzip
import json
import shutil
import warnings

import nibabel as nib
import numpy as np
import pytest

from calid.errors import CalidWarning, GeometryError, UsageError
from calid.io import read
from calid.io.sidecar import sidecar_of
from calid.view.sources import load_scene, read_marks


@pytest.fixture
def dense(files, tmp_path):
    """A copy of the volume and its record, to be damaged."""
    for path in (files.dense, sidecar_of(files.dense)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / files.dense.name


def edit(path, **output: object) -> None:
    record = json.loads(sidecar_of(path).read_text())
    record["output"] |= output
    sidecar_of(path).write_text(json.dumps(record))


def test_marks_come_from_the_record(files, volume):
    marks = read_marks(files.dense, read(files.dense))
    assert marks.origin == "generated"
    np.testing.assert_array_equal(marks.acquired, volume.acquired.nonzero()[0])


@pytest.mark.parametrize("record", [None, "{", "[1]", '{"output": 3}', '{"RepetitionTime": 2}'])
def test_without_a_record_nothing_is_marked(record, dense):
    sidecar_of(dense).unlink()
    if record is not None:
        sidecar_of(dense).write_text(record)
    marks = read_marks(dense, read(dense))
    assert marks.origin == "unknown"
    assert marks.acquired.size == 0


@pytest.mark.parametrize(
    "damage",
    [{"shape": [1, 2, 3, 4]}]
    + [{"acquired_slices": k} for k in ([0, 5, 99], [-1, 5], [5, 0], ["0"], [], 0)],
)
def test_the_record_of_another_volume_is_not_believed(damage, dense):
    edit(dense, **damage)
    with pytest.warns(CalidWarning, match="another volume"):
        marks = read_marks(dense, read(dense))
    assert marks.origin == "unknown"


@pytest.mark.parametrize("change", ["voxels", "header", "no hash", "another record"])
def test_a_record_is_tied_to_the_very_bytes_of_its_volume(change, dense):
    if change == "voxels":
        image = nib.load(dense)
        noise = np.random.default_rng(0).integers(0, 400, image.shape).astype(np.int16)
        nib.save(nib.Nifti1Image(noise, image.affine, image.header), dense)
    elif change == "header":
        image = nib.load(dense)
        image.header["descrip"] = b"touched"
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header), dense)
    else:
        record = json.loads(sidecar_of(dense).read_text())
        record["files_sha256"] = {} if change == "no hash" else {"output": "0" * 64}
        sidecar_of(dense).write_text(json.dumps(record))
    with pytest.warns(CalidWarning, match="another volume"):
        assert load_scene([dense]).panels[0].marks.origin == "unknown"


def test_the_page_opens_at_the_heart_if_the_record_says_where_it_is(dense):
    assert load_scene([dense]).centre == pytest.approx([0, 0, 0])
    edit(dense, region={"rows": [2, 12], "columns": [20, 30]})
    scene = load_scene([dense])
    layer = scene.panels[0].image
    place = np.linalg.inv(layer.affine) @ [*scene.centre, 1]
    assert place[:2] == pytest.approx([24.5, 6.5])
    assert place[2] == pytest.approx((len(layer.slices) - 1) / 2)


@pytest.mark.parametrize(
    "region",
    [3, [1, 2], {"rows": [2, 12]}, {"rows": [2], "columns": [1, 2]},
     {"rows": [2, 9999], "columns": [1, 2]}, {"rows": ["a", "b"], "columns": [1, 2]}],
)  # fmt: skip
def test_a_place_that_cannot_be_is_not_opened(region, dense):
    edit(dense, region=region)
    assert load_scene([dense]).centre == pytest.approx([0, 0, 0])


def test_titles_are_neutral_unless_given(files):
    scene = load_scene([files.dense, files.sparse, files.dense])
    assert [p.title for p in scene.panels] == ["CaLID 1", "Volume", "CaLID 2"]
    scene = load_scene([files.dense], files.sparse, titles=["mine"])
    assert [p.title for p in scene.panels] == ["As acquired", "Linear", "mine"]


def test_overlays_go_to_the_first_volume_only(files):
    scene = load_scene([files.dense, files.dense], files.sparse, files.uncertainty, files.labels)
    assert [p.labels is not None for p in scene.panels] == [False, False, True, False]
    assert [p.uncertainty is not None for p in scene.panels] == [False, False, True, False]
    assert len(scene.layers()) == 6


def test_a_stack_that_the_record_does_not_name_is_reported(files, tmp_path):
    other = tmp_path / "other.nii"
    other.write_bytes(gzip.decompress(files.sparse.read_bytes()))
    with pytest.warns(CalidWarning, match="another file"):
        load_scene([files.dense], other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scene([files.dense], files.sparse)


@pytest.mark.parametrize(
    ("volumes", "sparse", "titles"),
    [(0, False, ()), (5, False, ()), (3, True, ()), (2, False, ["one"])],
)
def test_what_does_not_fit_is_a_usage_error(volumes, sparse, titles, files):
    with pytest.raises(UsageError):
        load_scene([files.dense] * volumes, files.sparse if sparse else None, titles=titles)


def test_overlays_and_films_that_do_not_belong_together_are_refused(files, tmp_path):
    with pytest.raises(GeometryError):
        load_scene([files.sparse], labels=files.labels)
    with pytest.raises(GeometryError):
        load_scene([files.sparse], uncertainty=files.uncertainty)
    still = tmp_path / "still.nii.gz"
    nib.save(nib.load(files.dense).slicer[..., 0], still)
    with pytest.raises(GeometryError, match="frames"):
        load_scene([files.dense, still])
    spread = tmp_path / "spread.nii.gz"
    nib.save(nib.load(files.uncertainty).slicer[..., 0], spread)
    with pytest.raises(GeometryError, match="frames"):
        load_scene([files.dense], uncertainty=spread)
