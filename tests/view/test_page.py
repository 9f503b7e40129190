from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import re
from importlib import resources

import nibabel as nib
import numpy as np
import pytest

from calid.errors import CalidWarning
from calid.stack import Intensity
from calid.view.page import embedded_page, encode, linked_page, write_page
from calid.view.scene import Layer
from calid.view.sources import load_scene


class Elements(html.parser.HTMLParser):
    """Every element with its attributes and, of scripts and styles, its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        self.found.append(("", {}, []))  # what follows is nobody's text

    def handle_data(self, data):
        if self.found:
            self.found[-1][2].append(data)

    def texts(self, tag: str, **wanted: str) -> list[str]:
        return [
            "".join(text)
            for name, attributes, text in self.found
            if name == tag and wanted.items() <= attributes.items()
        ]


@pytest.fixture(scope="module")
def scene(files):
    return load_scene(
        [files.dense], files.sparse, files.uncertainty, files.labels, ["</script><b>&{{style}}"]
    )


@pytest.fixture(scope="module")
def page(scene):
    return embedded_page(scene)


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page)


def test_nothing_in_the_page_is_fetched_from_elsewhere(elements):
    for tag, attributes, _ in elements.found:
        assert tag not in ("iframe", "object", "embed", "base", "form") or attributes == {
            "method": "dialog"
        }
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_the_policy_lets_run_what_is_in_the_page_and_nothing_else(elements):
    (policy,) = (
        attributes["content"]
        for _, attributes, _ in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "unsafe" not in policy
    assert "http" not in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    run = [
        "".join(text)
        for tag, attributes, text in elements.found
        if tag == "script" and "type" not in attributes
    ]
    assert len(run) == 2
    for texts, name in ((run, "script-src"), (elements.texts("style"), "style-src")):
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()) for t in texts]
        assert rules[name] == " ".join(f"'sha256-{digest.decode()}'" for digest in digests)


def test_a_title_cannot_end_the_script_that_holds_it(elements):
    (text,) = elements.texts("script", id="scene")
    assert json.loads(text)["panels"][2]["title"] == "</script><b>&{{style}}"


def test_the_page_holds_every_layer(elements, scene):
    description = json.loads(elements.texts("script", id="scene")[0])
    links = [
        layer["link"]
        for panel in description["panels"]
        for layer in (panel["image"], panel["uncertainty"], panel["labels"])
        if layer
    ]
    assert links == [f"#layer-{k}" for k in range(5)]
    for link, layer in zip(links, scene.layers(), strict=True):
        (text,) = elements.texts("script", id=link.removeprefix("#"))
        content = gzip.decompress(base64.b64decode(text))
        assert len(content) == 352 + layer.data.nbytes


def test_no_name_of_a_file_is_in_the_page(page, files):
    assert files.dense.parent.name.rstrip("0") == "name_of_patient"
    for word in ("name_of_patient", "nii.gz"):
        assert word not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_a_linked_page_names_its_links_and_holds_no_voxels(scene):
    page = linked_page(scene, ["a", "b", "c", "d", "e"])
    assert 'id="layer-' not in page
    assert '"link": "e"' in page


def test_the_same_scene_is_the_same_page_and_says_what_it_is_for(scene, page):
    assert embedded_page(scene) == page
    assert "Research use only" in page
    assert "Not a medical device" in page


def test_a_large_page_is_written_with_a_warning(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("calid.view.page.LARGE", 1000)
    with pytest.warns(CalidWarning, match="MB"):
        write_page(scene, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_the_bundle_is_the_one_that_was_built_with_the_licences_of_its_parts():
    static = resources.files("calid.view") / "static"
    bundle = json.loads((static / "bundle.json").read_text())
    content = (static / bundle["script"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == bundle["sha256"]
    assert bundle["packages"]["@niivue/niivue"]["version"] == "0.69.0"
    licences = (static / "THIRD_PARTY_LICENCES.txt").read_text()
    for name, about in bundle["packages"].items():
        assert f"{name} {about['version']} ({about['license']})\n" in licences
    assert "Redistributions in binary form must reproduce" in licences


def layer(data: np.ndarray, **options: object) -> Layer:
    affine = np.diag([1.5, -1.5, 4.0, 1.0])
    return Layer(data, affine, np.array([0, 0, 1, 1]), (0.0, 1.0), **options)


def header_of(content: bytes) -> nib.Nifti1Header:
    return nib.Nifti1Header(gzip.decompress(content)[:348])


def test_the_header_is_of_the_shown_grid_and_the_voxels_are_stored_once():
    data = np.arange(3 * 2 * 5 * 7, dtype=np.int16).reshape(3, 2, 5, 7)
    content = encode(layer(data, intensity=Intensity(2.0, -1.0)))
    header = header_of(content)
    assert header.get_data_shape() == (7, 5, 4, 3)
    np.testing.assert_allclose(header.get_sform(), np.diag([1.5, -1.5, 4.0, 1.0]))
    np.testing.assert_allclose(header.get_zooms()[:3], (1.5, 1.5, 4.0))
    assert header.get_slope_inter() == (2.0, -1.0)
    stored = np.frombuffer(gzip.decompress(content)[352:], "<i2")
    np.testing.assert_array_equal(stored, data.ravel())


@pytest.mark.parametrize(
    ("before", "after"),
    [("i1", "i2"), ("i4", "f4"), ("f8", "f4"), *((k, k) for k in ("u1", "i2", "u2", "f4"))],
)
def test_voxels_are_of_a_type_that_the_page_reads(before, after):
    data = np.ones((1, 2, 5, 7), before)
    content = encode(layer(data))
    assert header_of(content).get_data_dtype() == np.dtype(after)
    assert (np.frombuffer(gzip.decompress(content)[352:], f"<{after}") == 1).all()


def test_equal_layers_give_equal_bytes_without_any_text_and_labels_say_so():
    data = np.ones((1, 2, 5, 7), np.uint8)
    assert encode(layer(data)) == encode(layer(data))
    header = header_of(encode(layer(data)))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        assert not header[field].item()
    assert int(header["intent_code"]) == 0
    assert int(header_of(encode(layer(data, labels=True)))["intent_code"]) == 1002
