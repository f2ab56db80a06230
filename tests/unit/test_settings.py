import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

import settings
from settings import BadSetting, Settings

ROOT = Path(settings.__file__).parent
URL = "redis://localhost:6379/0"


def read(**variables):
    return Settings.from_environment({"REDIS_URL": URL, **variables})


def test_redis_url_alone_is_enough():
    loaded = read()
    assert loaded.redis_url == URL
    assert loaded.default_model == "housing"
    assert loaded.models_path == ROOT / "models" / "artifacts"
    assert loaded.max_body_bytes == 2 * 1024**3
    assert loaded.results_ttl_seconds == 24 * 3600
    assert loaded.redis_tls_verify is True


def test_missing_redis_url_is_refused_with_what_to_do():
    with pytest.raises(BadSetting, match=r"REDIS_URL is not set: say where .*redis://localhost:6379/0"):
        Settings.from_environment({})


def test_values_get_the_types_of_their_fields():
    loaded = read(
        MODELS_PATH="/srv/models", MAX_ROWS="12", LEASE_SECONDS="2.5", REDIS_TLS_VERIFY="false", SWEEP_SECONDS="1"
    )
    assert loaded.models_path == Path("/srv/models")
    assert (loaded.max_rows, type(loaded.max_rows)) == (12, int)
    assert (loaded.lease_seconds, loaded.sweep_seconds) == (2.5, 1.0)
    assert loaded.redis_tls_verify is False


def test_every_field_is_read_from_the_variable_of_its_name():
    other = {
        "redis_url": "rediss://elsewhere:7000",
        "redis_tls_verify": "no",
        "models_path": "/elsewhere",
        "default_model": "iris@2",
        "log_level": "debug",
        "predictor_memory_bytes": str(1 << 30),
    }
    for field in fields(Settings):
        text = other.get(field.name) or str(field.default)
        if field.type in (int, float) and field.name not in {*other, "max_wait_seconds", "predict_wait_seconds"}:
            text = str(field.type(field.default * 0.99) if field.default > 100 else field.default + 1)
        if field.name == "predict_wait_seconds":
            text = "11"
        if field.name == "max_wait_seconds":
            text = "24"
        value = getattr(read(**{field.name.upper(): text}), field.name)
        assert value != field.default, field.name
        assert isinstance(value, field.type), field.name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAX_ROWS", "many"),
        ("MAX_ROWS", "1.5"),
        ("MAX_ROWS", "0"),
        ("MAX_ROWS", ""),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "-1"),
        ("MAX_WAIT_SECONDS", "26"),
        ("JOB_MAX_AGE_SECONDS", str(6 * 24 * 3600 + 1)),
        ("CHUNK_BYTES", "1023"),
        ("REDIS_TLS_VERIFY", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
        ("DEFAULT_MODEL", "../secrets"),
    ],
)
def test_bad_value_is_refused_with_the_variable_and_the_value(variable, value):
    with pytest.raises(BadSetting) as caught:
        read(**{variable: value})
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable} is {value!r}: ")


@pytest.mark.parametrize(
    ("named", "variables"),
    [
        ("TOMBSTONE_TTL_SECONDS", {"TOMBSTONE_TTL_SECONDS": "90000"}),
        ("TOMBSTONE_TTL_SECONDS", {"RESULTS_TTL_SECONDS": str(7 * 24 * 3600)}),
        ("PREDICT_WAIT_SECONDS", {"PREDICT_WAIT_SECONDS": "20", "MAX_WAIT_SECONDS": "15"}),
        ("BODY_IDLE_SECONDS", {"BODY_IDLE_SECONDS": "30", "UPLOAD_DEADLINE_SECONDS": "25"}),
        ("SLICE_SECONDS", {"SLICE_SECONDS": "5", "LEASE_SECONDS": "4"}),
        ("SWEEP_SECONDS", {"SWEEP_SECONDS": "5", "LEASE_SECONDS": "4"}),
    ],
)
def test_values_that_contradict_each_other_are_refused(named, variables):
    with pytest.raises(BadSetting, match=r"it must be at (most|least)") as caught:
        read(**variables)
    assert caught.value.variable == named


def test_predictor_has_the_memory_that_it_needs_or_the_default():
    assert read(PREDICTOR_MEMORY_BYTES="0").predictor_memory_bytes == 0
    with pytest.raises(BadSetting, match="PREDICTOR_MEMORY_BYTES is 1000000: it must be 0 or at least 268435456"):
        read(PREDICTOR_MEMORY_BYTES="1000000")


def test_longest_allowed_job_fits_the_default_tombstone():
    assert read(JOB_MAX_AGE_SECONDS=str(6 * 24 * 3600)).tombstone_ttl_seconds == 7 * 24 * 3600


@pytest.mark.parametrize("url", [URL, "rediss://:pw@host:7000/1", "unix:///run/redis.sock", "redis://h?protocol=3"])
def test_store_urls_are_accepted_as_they_are(url):
    assert read(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://user:sesame@host:6379",
        "redis://user:sesame@host:sixthousand",
        "redis://:ses/ame@host:1",
        "redis://:sesame",
        "redis:///sesame",
        "rediss//:sesame@host:6379",
        "http://host:6379?password=sesame",
        "sesame",
        "[sesame",
    ],
)
def test_password_of_a_refused_store_url_is_not_shown(url):
    with pytest.raises(BadSetting) as caught:
        read(REDIS_URL=url)
    assert caught.value.variable == "REDIS_URL"
    assert "sesame" not in str(caught.value)
    assert "ses/ame" not in str(caught.value)


def test_refused_store_url_without_password_is_shown():
    with pytest.raises(BadSetting, match=r"'localhost:6379': write a URL like"):
        read(REDIS_URL="localhost:6379")
    with pytest.raises(BadSetting, match=re.escape("'http://***@host:6379'")):
        read(REDIS_URL="http://user:sesame@host:6379")


def test_password_is_not_in_the_printed_settings():
    assert "sesame" not in repr(read(REDIS_URL="redis://:sesame@host:6379"))


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        read().max_rows = 1


def test_load_reads_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://from-the-environment:6379")
    assert settings.load().redis_url == "redis://from-the-environment:6379"


def test_inherited_environment_carries_the_changes_and_the_rest(monkeypatch):
    monkeypatch.setenv("KEPT", "yes")
    environment = settings.inherited(REDIS_URL=URL)
    assert (environment["KEPT"], environment["REDIS_URL"]) == ("yes", URL)


def test_table_has_one_row_for_each_setting():
    rows = settings.table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [field.name.upper() for field in fields(Settings)]
    assert all(row.count("|") == 5 for row in rows)


def test_readme_shows_the_table_of_settings():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    assert shown.strip() == settings.table().strip()
