"""Loading: what is refused, and that nothing in an artifact runs before its bytes are known."""

import hashlib
import json
import pickle
from io import BytesIO

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from models.add import add
from models.catalog import Catalog
from models.loading import CannotLoad, load, unpickle


@pytest.fixture
def rent(tmp_path):
    add(tmp_path, "rent", pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0])))
    return tmp_path


def loaded(path):
    return load(path, "rent", "1", Catalog.read(path, "").find("rent").sha256)


def rewrite_manifest(path, **changes):
    catalog = Catalog.read(path, "")
    manifest = catalog.find("rent")
    file = catalog.directory(manifest) / "manifest.json"
    file.write_text(json.dumps(manifest.to_json() | changes))
    return catalog.directory(manifest)


def refusal(path, sha256=None):
    manifest = Catalog.read(path, "").find("rent")
    with pytest.raises(CannotLoad) as caught:
        load(path, "rent", "1", sha256 or manifest.sha256)
    assert str(path) not in str(caught.value)
    return caught.value


def test_loaded_model_predicts(rent):
    (outcome,) = loaded(rent).predict([[7.0]])
    assert outcome.value == pytest.approx(14.0)
    assert type(outcome.value) is float
    assert outcome.probabilities is None


def test_missing_artifact_is_unavailable(rent):
    (rent / "rent/1/model.pkl").unlink()
    assert refusal(rent).code == "model_unavailable"


def test_another_digest_than_asked_for_is_unavailable(rent):
    assert refusal(rent, sha256="0" * 64).code == "model_unavailable"


@pytest.mark.parametrize(("name", "version"), [("rent", "2"), ("tulip", "1"), ("..", ".."), ("rent/1", "..")])
def test_version_that_is_not_there_is_unavailable(rent, name, version):
    with pytest.raises(CannotLoad) as caught:
        load(rent, name, version, "0" * 64)
    assert caught.value.code == "model_unavailable"


def test_broken_manifest_is_refused(rent):
    sha256 = Catalog.read(rent, "").find("rent").sha256
    (rent / "rent/1/manifest.json").write_text("{")
    with pytest.raises(CannotLoad) as caught:
        load(rent, "rent", "1", sha256)
    assert caught.value.code == "model_load_failed"


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_changed_bytes_are_refused_before_anything_in_them_runs(rent, tmp_path):
    sprung = tmp_path / "sprung"
    (rent / "rent/1/model.pkl").write_bytes(pickle.dumps(Trap(sprung)))
    assert refusal(rent).code == "model_corrupt"
    assert not sprung.exists()


@pytest.mark.parametrize(
    "harm", [lambda artifact: artifact[:-1], lambda artifact: artifact[:50] + b"\0" + artifact[51:]]
)
def test_artifact_cut_short_or_with_a_changed_byte_is_corrupt(rent, harm):
    file = rent / "rent/1/model.pkl"
    file.write_bytes(harm(file.read_bytes()))
    assert refusal(rent).code == "model_corrupt"


def test_other_scikit_learn_version_is_refused_before_unpickling(rent, tmp_path):
    sprung = tmp_path / "sprung"
    artifact = pickle.dumps(Trap(sprung))
    folder = rewrite_manifest(
        rent, sha256=hashlib.sha256(artifact).hexdigest(), library_versions={"scikit-learn": "1.0.2"}
    )
    (folder / "model.pkl").write_bytes(artifact)
    error = refusal(rent)
    assert error.code == "model_load_failed"
    assert "1.0.2" in str(error)
    assert not sprung.exists()


def test_pickle_of_another_scikit_learn_version_is_refused_whatever_the_manifest_says():
    state = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]).__getstate__()
    old = pickle.dumps(Older(state | {"_sklearn_version": "1.0.2"}))
    with pytest.raises(CannotLoad, match=r"1\.0\.2") as caught:
        unpickle(old)
    assert caught.value.code == "model_load_failed"


class Older:
    """Pickles as a LinearRegression with the given state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return LinearRegression, (), self.state


@pytest.mark.parametrize("artifact", [b"", b"hello", b"a,b\n1,2\n", b"\x80\x04"])
def test_bytes_that_are_no_pickle_are_refused(artifact):
    with pytest.raises(CannotLoad) as caught:
        unpickle(artifact)
    assert caught.value.code == "model_load_failed"


def test_module_that_is_not_installed_is_named():
    with pytest.raises(CannotLoad, match="no_such_library"):
        unpickle(b"cno_such_library\nModel\n.")


@pytest.mark.parametrize("content", [{"model": None}, {"other": LinearRegression()}, [1], LinearRegression, None])
def test_file_without_an_estimator_is_refused(rent, content):
    artifact = pickle.dumps(content)
    folder = rewrite_manifest(rent, sha256=hashlib.sha256(artifact).hexdigest())
    (folder / "model.pkl").write_bytes(artifact)
    assert refusal(rent).code == "model_load_failed"


@pytest.mark.parametrize("compress", [0, 3, "xz"])
def test_joblib_files_load_too(tmp_path, compress):
    file = BytesIO()
    joblib.dump({"model": LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])}, file, compress=compress)
    add(tmp_path, "rent", file.getvalue())
    (outcome,) = loaded(tmp_path).predict([[3.0]])
    assert outcome.value == pytest.approx(3.0)
