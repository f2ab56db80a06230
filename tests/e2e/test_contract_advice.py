"""What errors advise, where people have lost time: a model that was not named, line ends that curl took out, commas."""

import pytest

FLOWERS = b"sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,0.2\n"


def detail_of(refused, status, code):
    assert (refused.status, refused.code) == (status, code)
    return refused.json["detail"]


def test_columns_that_do_not_fit_a_model_nobody_named_tell_that_it_was_the_default(client):
    detail = detail_of(client.send(FLOWERS), 422, "missing_columns")
    assert "names no model, so the default model housing was used" in detail
    assert "?model=" in detail
    assert "iris" in detail


def test_values_that_do_not_fit_a_model_nobody_named_tell_that_it_was_the_default(client):
    detail = detail_of(client.predict({"bmi": 1}), 422, "missing_columns")
    assert "names no model, so the default model housing was used" in detail
    assert "iris" in detail


@pytest.mark.parametrize("query", ["?model=diabetes", "?model=iris&delimiter=semicolon"])
def test_default_is_not_mentioned_where_a_model_was_named_or_the_delimiter_is_the_reason(client, query):
    assert "default" not in detail_of(client.send(FLOWERS, query), 422, "missing_columns")


def test_default_is_not_mentioned_where_the_form_or_the_document_names_the_model(client):
    form = b'--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\ndiabetes\r\n'
    form += b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + FLOWERS + b"\r\n--edge--"
    refused = client.send(form, type="multipart/form-data; boundary=edge")
    assert "default" not in detail_of(refused, 422, "missing_columns")
    refused = client.send_json({"model": "iris", "input": {"bmi": 1}})
    assert "default" not in detail_of(refused, 422, "missing_columns")


@pytest.mark.parametrize("body", [FLOWERS.replace(b"\n", b""), b"sepal_length", b"a,a"])
def test_body_whose_line_ends_curl_took_out_is_told_how_to_be_sent(client, body):
    refused = client.send(body, "?model=iris")
    assert refused.status in (400, 422)
    assert "--data-binary" in refused.json["detail"]


@pytest.mark.parametrize("body", [b"", b"a\n", b"a\n1\n", b"\xff", b"a\nb,\0"])
def test_body_with_line_ends_or_without_anything_is_not_told_so(client, body):
    refused = client.send(body, "?model=iris")
    assert refused.status in (400, 422)
    assert "--data-binary" not in refused.json["detail"]


def test_text_that_is_not_utf_8_is_told_how_to_name_its_charset(client):
    assert "Content-Type: text/csv; charset=" in detail_of(client.send(b"RM\n\xff\n"), 400, "encoding")


def test_model_that_is_unknown_may_wait_for_a_restart(client):
    assert "restart" in detail_of(client.get("/models/nobody"), 404, "unknown_model")


def test_inputs_are_not_named_among_the_fields_of_a_prediction(client):
    refused = client.send_json({"input": 7, "imput": 7}, "/predict")
    assert "Known are: input, model." in detail_of(refused, 422, "unknown_field")
    refused = client.send_json({"input": 7, "imput": 7})
    assert "Known are: input, inputs, model." in detail_of(refused, 422, "unknown_field")


def test_decimal_comma_is_told_to_be_a_point(client):
    rows = client.rows(client.done(b'RM\n"6,5"\nsix\n', "?model=housing"))
    assert [row["error"]["message"] for row in rows] == [
        "RM is not a number; write decimals with a point",
        "RM is not a number",
    ]
    assert "write decimals with a point" in detail_of(client.predict("6,5"), 422, "invalid_number")


def test_category_that_is_unknown_names_its_column_and_the_ones_that_are_known(client):
    home = dict.fromkeys(["area", "rooms", "year_built", "distance_km", "district"], "1") | {"heating": "wood fire"}
    refused = client.predict(home, "?model=apartments")
    detail = detail_of(refused, 422, "unknown_category")
    assert detail.startswith("heating has a category that the model does not know; it knows: ")
    assert "wood" not in detail
    assert refused.json["errors"] == [{"code": "unknown_category", "column": "heating"}]


def test_cancel_after_the_end_says_so_in_plain_words(client):
    path = client.done(b"RM\n7\n", "?model=housing")
    detail = detail_of(client.ask("POST", f"{path}/cancel"), 409, "job_ended")
    assert detail.startswith("The job has succeeded, so there is nothing left to cancel.")
