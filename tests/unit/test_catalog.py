"""The catalog: what it reads, what it refuses, and what it finds by which name."""

import json
import subprocess
import sys

import pytest

from models.catalog import (
    BadManifest,
    Catalog,
    Feature,
    Manifest,
    ModelsError,
    UnknownDefault,
    UnknownModel,
    read_manifest,
)


def a_manifest(name="rent", version="1", **changes):
    known = {
        "name": name,
        "version": version,
        "sha256": "ab" * 32,
        "artifact": "model.pkl",
        "task": "regression",
        "features": [
            {
                "name": "area",
                "type": "number",
                "minimum": 1.5,
                "maximum": None,
                "categories": None,
                "accepts_missing": True,
                "accepts_unknown": True,
            }
        ],
        "target": "price",
        "classes": None,
        "has_probabilities": False,
        "accepts_infinite": False,
        "needs_frame": False,
        "metrics": {"r2": 0.5},
        "rows": 12,
        "library_versions": {"scikit-learn": "1.0"},
        "created_at": "2026-01-31T12:00:00Z",
        "description": "",
    }
    return known | changes


def put(path, manifest, folder=None):
    directory = path / (folder or f"{manifest['name']}/{manifest['version']}")
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_manifest_survives_its_json():
    value = a_manifest(classes=["a", 1, 2.5, True], rows=None)
    manifest = Manifest.from_json(value)
    assert manifest.to_json() == value
    assert [type(item) for item in manifest.classes] == [str, int, float, bool]
    assert manifest.features == (Feature("area", "number", 1.5, None, None, True, True),)


def test_key_names_the_state_of_the_model():
    assert Manifest.from_json(a_manifest()).key == "rent@1:abababababab"


def test_catalog_loads_no_model(tmp_path):
    put(tmp_path, a_manifest())
    (tmp_path / "rent/1/model.pkl").write_bytes(b"no pickle at all")
    assert Catalog.read(tmp_path, "rent").find(None).name == "rent"


def test_catalog_and_rows_import_the_standard_library_only():
    program = "import sys, models.catalog, models.rows; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {*sys.stdlib_module_names, "__main__", "models"}


def test_newest_version_is_found_by_number_not_by_text(tmp_path):
    for version in ("10", "9", "2", "1.10", "1.9"):
        put(tmp_path, a_manifest(version=version))
    catalog = Catalog.read(tmp_path, "rent")
    assert [manifest.version for manifest in catalog.versions("rent")] == ["1.9", "1.10", "2", "9", "10"]
    assert catalog.find("rent").version == "10"
    assert catalog.find("rent@1.9").version == "1.9"


def test_versions_of_text_and_digits_have_an_order(tmp_path):
    for version in ("v2", "1", "01", "2b", "2", "a"):
        put(tmp_path, a_manifest(version=version))
    assert [one.version for one in Catalog.read(tmp_path, "").manifests] == ["01", "1", "2", "2b", "a", "v2"]


def test_nothing_named_means_the_default(tmp_path):
    put(tmp_path, a_manifest("rent"))
    put(tmp_path, a_manifest("iris", version="1"))
    put(tmp_path, a_manifest("iris", version="2"))
    assert Catalog.read(tmp_path, "iris").find(None).version == "2"
    assert Catalog.read(tmp_path, "iris@1").find(None).version == "1"


@pytest.mark.parametrize("reference", ["", "tulip", "rent@2", "rent@", "@1", "rent@1@1", "../rent", "Rent"])
def test_unknown_reference_is_refused_with_what_is_known(tmp_path, reference):
    put(tmp_path, a_manifest())
    with pytest.raises(UnknownModel) as caught:
        Catalog.read(tmp_path, "rent").find(reference)
    assert caught.value.reference == reference
    assert set(caught.value.known) <= {"rent", "rent@1"}


@pytest.mark.parametrize("default", ["rend", "rent@2"])
def test_default_that_is_not_among_the_models_is_refused_naming_the_setting(tmp_path, default):
    put(tmp_path, a_manifest())
    with pytest.raises(UnknownDefault, match=f"DEFAULT_MODEL is '{default}', .* one of rent"):
        Catalog.read(tmp_path, default)


def test_default_of_a_catalog_without_models_is_an_unknown_model(tmp_path):
    with pytest.raises(UnknownModel):
        Catalog.read(tmp_path, "rent").find(None)


def test_names_are_sorted_and_directory_leads_to_the_artifact(tmp_path):
    put(tmp_path, a_manifest("rent"))
    put(tmp_path, a_manifest("iris"))
    catalog = Catalog.read(tmp_path, "rent")
    assert catalog.names == ("iris", "rent")
    assert catalog.directory(catalog.find("rent")) == tmp_path / "rent" / "1"


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ModelsError, match="no models folder"):
        Catalog.read(tmp_path / "nowhere", "rent")


def test_unfinished_version_is_not_read(tmp_path):
    put(tmp_path, a_manifest())
    put(tmp_path, a_manifest(), folder="rent/.unfinished")
    assert len(Catalog.read(tmp_path, "rent").manifests) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Rent"),
        ("name", "../rent"),
        ("version", ""),
        ("version", "1/2"),
        ("version", "1\n"),
        ("version", 1),
        ("sha256", "ab"),
        ("artifact", "../model.pkl"),
        ("artifact", "/etc/passwd"),
        ("artifact", ""),
        ("task", "magic"),
        ("features", []),
        ("features", None),
        ("features", a_manifest()["features"] * 2),
        ("features", [a_manifest()["features"][0] | {"name": ""}]),
        ("features", [a_manifest()["features"][0] | {"type": "date"}]),
        ("features", [a_manifest()["features"][0] | {"minimum": True}]),
        ("features", [a_manifest()["features"][0] | {"categories": [1]}]),
        ("features", [a_manifest()["features"][0] | {"accepts_missing": 1}]),
        ("classes", [None]),
        ("classes", "ab"),
        ("has_probabilities", None),
        ("metrics", {"r2": "good"}),
        ("metrics", {"r2": float("nan")}),
        ("rows", "many"),
        ("library_versions", {"numpy": 2}),
    ],
)
def test_broken_manifest_is_refused_naming_the_file(tmp_path, field, value):
    folder = tmp_path / "rent" / "1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(a_manifest() | {field: value}))
    with pytest.raises(BadManifest) as caught:
        Catalog.read(tmp_path, "rent")
    assert caught.value.path == folder / "manifest.json"
    assert str(caught.value.path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000, "\ud800"])
def test_manifest_that_is_no_json_object_is_refused(tmp_path, text):
    folder = tmp_path / "rent" / "1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BadManifest):
        Catalog.read(tmp_path, "rent")


def test_manifest_in_another_folder_than_it_says_is_refused(tmp_path):
    put(tmp_path, a_manifest(version="2"), folder="rent/1")
    with pytest.raises(BadManifest, match="rent@2"):
        Catalog.read(tmp_path, "rent")


@pytest.mark.parametrize(("name", "version"), [("..", "1"), ("rent", ".."), ("rent", "2"), ("rent/1", "x"), ("", "")])
def test_manifest_outside_the_models_folder_is_not_read(tmp_path, name, version):
    put(tmp_path, a_manifest())
    assert read_manifest(tmp_path, name, version) is None
