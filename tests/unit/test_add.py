"""Adding models: what is found out about them, what is refused, and that what ships can be made again."""

import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor

from models.__main__ import ARTIFACTS, main
from models.add import CannotAdd, add, next_version
from models.catalog import Catalog, ModelsError
from models.loading import CannotLoad, load
from models.predictor import columns_of
from models.rows import read_row
from models.sample import BadSample, parse, read
from models.train import RECIPES, fit

FRAME = pd.DataFrame({"area": [10.0, 20.0, 30.0, 40.0], "heating": ["gas", "oil", "oil", "gas"]})
PRICES = [1.0, 2.0, 3.0, 4.0]


def added(path, estimator, name="rent", **options):
    return add(path, name, pickle.dumps(estimator), **options).manifest


def feature(manifest, name):
    return next(feature for feature in manifest.features if feature.name == name)


def on_both_columns(encoder):
    columns = make_column_transformer((encoder, ["heating"]), remainder="passthrough")
    return make_pipeline(columns, LinearRegression()).fit(FRAME, PRICES)


def predicted(path, row, reference="rent"):
    manifest = Catalog.read(path, "").find(reference)
    predictor = load(path, manifest.name, manifest.version, manifest.sha256)
    return predictor.predict([read_row(row, manifest)])[0].value


def test_names_come_from_the_frame_it_was_fitted_on(tmp_path):
    assert added(tmp_path, LinearRegression().fit(FRAME[["area"]], PRICES)).feature_names == ("area",)


def test_names_come_from_the_first_step_and_through_a_search(tmp_path):
    search = GridSearchCV(make_pipeline(StandardScaler(), LinearRegression()), {}, cv=2)
    assert added(tmp_path, search.fit(FRAME[["area"]], PRICES)).feature_names == ("area",)


def test_columns_without_names_are_numbered(tmp_path):
    assert added(tmp_path, LinearRegression().fit(np.eye(4)[:, :3], PRICES)).feature_names == ("x0", "x1", "x2")


def test_columns_without_names_take_those_of_the_sample_without_the_target(tmp_path):
    sample = parse(["area,rooms,price\n", "30,2,900\n"])
    manifest = added(tmp_path, LinearRegression().fit(np.eye(4)[:, :2], PRICES), sample=sample, target="price")
    assert manifest.feature_names == ("area", "rooms")
    assert manifest.target == "price"


def test_sample_with_other_columns_than_the_model_is_refused(tmp_path):
    with pytest.raises(CannotAdd, match="--target"):
        added(tmp_path, LinearRegression().fit(np.eye(4)[:, :2], PRICES), sample=parse(["a,b,c\n", "1,2,3\n"]))
    with pytest.raises(BadSample, match="'area'"):
        added(tmp_path, LinearRegression().fit(FRAME[["area"]], PRICES), sample=parse(["a\n", "1\n"]))


def test_ranges_and_types_come_from_the_sample(tmp_path):
    sample = parse(["heating;area\n", "gas;10\n", "oil;na\n", "gas; 40.5 \n"])
    manifest = added(tmp_path, on_both_columns(OneHotEncoder()), sample=sample)
    area, heating = feature(manifest, "area"), feature(manifest, "heating")
    assert (area.type, area.minimum, area.maximum) == ("number", 10.0, 40.5)
    assert (heating.type, heating.categories) == ("text", ("gas", "oil"))


@pytest.mark.parametrize(
    "encoder",
    [OneHotEncoder(), OrdinalEncoder(), make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())],
)
def test_categories_come_from_encoders_without_a_sample(tmp_path, encoder):
    manifest = added(tmp_path, on_both_columns(encoder))
    assert feature(manifest, "heating").categories == ("gas", "oil")
    assert feature(manifest, "area").type == "number"


@pytest.mark.parametrize("columns", [["heating"], [1], slice(1, 2), [False, True], slice("heating", "heating"), -1])
def test_categories_are_found_however_the_columns_were_chosen(tmp_path, columns):
    if columns == -1:
        columns = [-1]
    transformer = make_column_transformer((OneHotEncoder(), columns), remainder="passthrough")
    estimator = make_pipeline(transformer, LinearRegression()).fit(FRAME, PRICES)
    assert feature(added(tmp_path, estimator), "heating").categories == ("gas", "oil")


def test_categories_behind_a_step_that_changes_texts_are_not_those_of_the_input(tmp_path):
    changed = make_pipeline(FunctionTransformer(to_upper), OneHotEncoder())
    manifest = added(tmp_path, on_both_columns(changed), sample=parse(["area,heating\n", "1,gas\n"]))
    assert feature(manifest, "heating").categories is None
    assert predicted(tmp_path, ["10", "gas"]) == pytest.approx(1.0)


def to_upper(frame):
    return frame.map(str.upper)


def test_categories_of_boosted_trees_come_from_the_column_they_were_fitted_on(tmp_path):
    frame = FRAME.astype({"heating": "category"})
    trees = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=1).fit(frame, PRICES)
    heating = feature(added(tmp_path, trees), "heating")
    assert (heating.categories, heating.accepts_missing, heating.accepts_unknown) == (("gas", "oil"), True, True)
    assert predicted(tmp_path, ["40", "gas"]) == pytest.approx(trees.predict(frame[3:])[0])


def test_text_columns_without_a_sample_ask_for_one(tmp_path):
    class_of_text = make_pipeline(FunctionTransformer(lengths), LinearRegression()).fit(FRAME[["heating"]], PRICES)
    with pytest.raises(CannotAdd, match=r"--sample rows\.csv"):
        added(tmp_path, class_of_text)
    assert not list(tmp_path.iterdir())
    manifest = added(tmp_path, class_of_text, sample=parse(["heating\n", "gas\n"]))
    assert manifest.features[0].type == "text"


def lengths(frame):
    return np.array([[len(cell)] for cell in frame["heating"]], dtype=float)


@pytest.mark.parametrize(("policy", "accepts"), [("ignore", True), ("error", False)])
def test_unknown_category_is_probed(tmp_path, policy, accepts):
    manifest = added(tmp_path, on_both_columns(OneHotEncoder(handle_unknown=policy)))
    assert feature(manifest, "heating").accepts_unknown is accepts


def test_missing_values_are_probed_feature_by_feature(tmp_path):
    columns = make_column_transformer((SimpleImputer(), ["area"]), ("passthrough", ["rooms"]))
    table = FRAME[["area"]].assign(rooms=[1.0, 2.0, 2.0, 1.0])
    manifest = added(tmp_path, make_pipeline(columns, LinearRegression()).fit(table, PRICES))
    assert [feature.accepts_missing for feature in manifest.features] == [True, False]


def test_infinite_numbers_are_probed(tmp_path):
    trees = HistGradientBoostingRegressor(max_iter=2).fit(FRAME[["area"]], PRICES)
    assert added(tmp_path, trees).accepts_infinite
    assert not added(tmp_path, LinearRegression().fit(FRAME[["area"]], PRICES)).accepts_infinite


def test_frame_is_needed_only_where_columns_are_chosen_by_name(tmp_path):
    assert not added(tmp_path, LinearRegression().fit(FRAME[["area"]], PRICES)).needs_frame
    by_name = make_column_transformer(("passthrough", ["area"]))
    manifest = added(tmp_path, make_pipeline(by_name, LinearRegression()).fit(FRAME[["area"]], PRICES))
    assert manifest.needs_frame
    assert predicted(tmp_path, ["20"]) == pytest.approx(2.0)


def test_probabilities_are_found_where_they_work(tmp_path):
    labels = ["cheap", "cheap", "dear", "dear"]
    sure = added(tmp_path, LogisticRegression().fit(FRAME[["area"]], labels))
    unsure = added(tmp_path, LinearSVC().fit(FRAME[["area"]], labels))
    assert (sure.task, sure.classes, sure.has_probabilities) == ("classification", ("cheap", "dear"), True)
    assert (unsure.classes, unsure.has_probabilities) == (("cheap", "dear"), False)


def test_clusters_and_outliers_are_tasks_of_their_own(tmp_path):
    clusters = added(tmp_path, KMeans(2, n_init=1).fit(FRAME[["area"]]))
    outliers = added(tmp_path, IsolationForest(n_estimators=2).fit(FRAME[["area"]]))
    assert (clusters.task, clusters.classes) == ("clustering", None)
    assert (outliers.task, outliers.classes) == ("outlier_detection", None)


def test_tutorial_dictionary_is_added_as_its_own_bytes(tmp_path):
    artifact = pickle.dumps({"model": DecisionTreeRegressor().fit(FRAME[["area"]], PRICES)})
    add(tmp_path, "rent", artifact)
    assert (tmp_path / "rent/1/model.pkl").read_bytes() == artifact
    assert predicted(tmp_path, ["31"]) == 3.0


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression().fit(FRAME[["area"]], np.array([PRICES, PRICES]).T),
        DecisionTreeRegressor().fit(FRAME[["area"]], np.array([PRICES, PRICES]).T),
    ],
)
def test_model_with_several_outputs_is_refused(tmp_path, estimator):
    with pytest.raises(CannotAdd, match="several outputs") as caught:
        added(tmp_path, estimator)
    assert "--sample" not in str(caught.value)


class Unimportable(LinearRegression):
    """Is not found where its pickle says."""


def test_class_that_is_not_found_is_to_be_moved_into_a_module(tmp_path):
    artifact = pickle.dumps(Unimportable().fit(FRAME[["area"]], PRICES)).replace(b"Unimportable", b"Unimportabel")
    with pytest.raises(CannotAdd, match="Move it into a module that is installed where the workers run") as caught:
        add(tmp_path, "rent", artifact)
    assert "Unimportabel" in str(caught.value.__cause__)  # the command prints it too


def test_model_of_another_scikit_learn_is_told_how_to_be_saved_again(tmp_path):
    estimator = LinearRegression().fit(FRAME[["area"]], PRICES)
    artifact = pickle.dumps(estimator).replace(sklearn.__version__.encode(), b"0" * len(sklearn.__version__))
    with pytest.raises(CannotAdd, match=f"pip install scikit-learn=={sklearn.__version__}"):
        add(tmp_path, "rent", artifact)


def test_target_that_the_sample_lacks_is_refused_unless_it_holds_the_features_alone(tmp_path):
    model = LinearRegression().fit(FRAME[["area"]], PRICES)
    with pytest.raises(CannotAdd, match=r"no column 'prise'; .* it has: price, id\."):
        added(tmp_path, model, sample=parse(["price,area,id\n", "900,30,a\n"]), target="prise")
    alone, more = parse(["area\n", "30\n"]), parse(["price,area\n", "900,30\n"])
    assert added(tmp_path, model, sample=alone, target="rent").target == "rent"
    assert added(tmp_path, model, sample=more, target="price").target == "price"
    assert added(tmp_path, model, sample=more).target == "prediction"


def test_estimator_that_was_never_fitted_is_refused(tmp_path):
    with pytest.raises(CannotAdd, match="fitted"):
        added(tmp_path, LinearRegression())


def test_file_without_an_estimator_is_refused(tmp_path):
    with pytest.raises(CannotLoad, match="holds no estimator"):
        added(tmp_path, {"weights": [1, 2]})


@pytest.mark.parametrize(("name", "version"), [("Rent", None), ("../rent", None), ("rent", "a/b"), ("", None)])
def test_names_that_are_no_folder_names_are_refused(tmp_path, name, version):
    with pytest.raises(CannotAdd, match="lower-case"):
        added(tmp_path, LinearRegression().fit(FRAME[["area"]], PRICES), name, version=version)


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    model = LinearRegression().fit(FRAME[["area"]], PRICES)
    assert [added(tmp_path, model).version, added(tmp_path, model).version] == ["1", "2"]
    assert added(tmp_path, model, version="9").version == "9"
    assert next_version(tmp_path, "rent") == "10"
    with pytest.raises(CannotAdd, match="already there"):
        added(tmp_path, model, version="2")


def test_version_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    model = LinearRegression().fit(FRAME[["area"]], PRICES)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "1").write_text("a file where the folder should be")
    with pytest.raises(CannotAdd, match="cannot be written"):
        added(tmp_path, model, "taken", version="1", replacing=True)
    assert sorted(path.name for path in tmp_path.rglob(".*")) == []


def test_example_is_an_input_that_can_be_predicted(tmp_path):
    result = add(tmp_path, "rent", pickle.dumps(on_both_columns(OneHotEncoder())))
    assert set(result.example) == {"area", "heating"}
    assert math.isfinite(predicted(tmp_path, [str(result.example["area"]), result.example["heating"]]))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [([], "header"), (["a,b\n"], "no rows"), (["a,a\n", "1,2\n"], "differ"), (["a,b\n", "1\n"], "1 cells")],
)
def test_sample_that_cannot_be_used_is_refused(lines, reason):
    with pytest.raises(BadSample, match=reason):
        parse(lines)


def test_sample_is_read_with_byte_order_mark_quotes_and_blank_lines(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b'\xef\xbb\xbf"a;1";b\r\n"x\r\ny";2\r\n\r\n')
    assert read(file).columns == ("a;1", "b")
    assert read(file).cells("a;1") == ["x\r\ny"]
    with pytest.raises(BadSample):
        read(tmp_path / "nowhere.csv")


def test_command_adds_a_file_and_prints_how_to_try_it(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("area,heating\n10,gas\n20,oil\n")
    (tmp_path / "model.p").write_bytes(pickle.dumps({"model": on_both_columns(OneHotEncoder())}))
    models = ["--models-path", str(tmp_path / "models")]
    command = ["add", str(tmp_path / "model.p"), "--name", "rent", "--sample", str(tmp_path / "rows.csv"), *models]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "rent@1" in printed
    assert "predict?model=rent" in printed
    assert '{"input": {"area": 10.0, "heating": "gas"}}' in printed
    assert main(["list", *models]) == 0
    assert "  2 features" in capsys.readouterr().out
    assert main(["show", "rent@1", *models]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "rent"


def test_command_prints_errors_and_fails(tmp_path, capsys):
    (tmp_path / "model.p").write_bytes(b"cno_such_library\nModel\n.")
    models = ["--models-path", str(tmp_path / "models")]
    assert main(["add", str(tmp_path / "model.p"), "--name", "rent", *models]) == 1
    assert "no_such_library" in capsys.readouterr().err
    assert main(["add", str(tmp_path / "nowhere.p"), "--name", "rent", *models]) == 1
    assert "nowhere.p" in capsys.readouterr().err
    assert main(["list", *models]) == 1
    assert main(["show", "rent", *models]) == 1


def test_check_tells_which_models_do_not_load(tmp_path, capsys):
    model = LinearRegression().fit(FRAME[["area"]], PRICES)
    added(tmp_path, model)
    added(tmp_path, model, "iris")
    (tmp_path / "iris/1/model.pkl").write_bytes(b"")
    assert main(["check", "--models-path", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "ok   rent@1" in printed
    assert "BAD  iris@1: model_corrupt" in printed


def test_everything_that_ships_loads_and_is_small():
    assert main(["check"]) == 0
    catalog = Catalog.read(ARTIFACTS, "housing")
    assert {"apartments", "diabetes", "housing", "iris"} <= set(catalog.names)
    for recipe in RECIPES:
        manifest = catalog.find(f"{recipe.name}@1")
        assert (catalog.directory(manifest) / manifest.artifact).stat().st_size < 200_000


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_retrained_model_predicts_as_the_shipped_one(recipe):
    manifest = Catalog.read(ARTIFACTS, "").find(f"{recipe.name}@1")
    shipped = load(ARTIFACTS, manifest.name, manifest.version, manifest.sha256)
    estimator, table, metrics = fit(recipe)
    rows = table.features.astype(object).where(table.features.notna(), None).values.tolist()
    answer = shipped.ask(columns_of(rows, shipped.manifest))
    expected = np.asarray(estimator.predict(table.features))
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(answer.values, expected, rtol=1e-9)
    else:
        assert answer.values.tolist() == expected.tolist()
    assert metrics == pytest.approx(dict(manifest.metrics), abs=1e-3)
    assert manifest.rows == len(table.features)


def test_tutorial_example_gives_the_tutorial_answer():
    assert predicted(ARTIFACTS, ["7"], "housing") == pytest.approx(29.04414209)


def test_shipped_models_show_every_way_of_taking_a_cell():
    manifest = Catalog.read(ARTIFACTS, "").find("apartments")
    accepted = {feature.name: (feature.accepts_missing, feature.accepts_unknown) for feature in manifest.features}
    assert accepted["year_built"] == (True, True)
    assert accepted["area"] == (False, True)
    assert accepted["district"] == (True, True)
    assert accepted["heating"] == (False, False)
    assert not any(feature.accepts_missing for feature in Catalog.read(ARTIFACTS, "").find("diabetes").features)


def test_models_without_a_folder_are_an_error(tmp_path):
    with pytest.raises(ModelsError):
        Catalog.read(tmp_path / "nowhere", "")
