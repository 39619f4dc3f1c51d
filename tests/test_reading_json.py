"""`icre_jax.files.json_files`: what Python's own reader gives, within limits."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import UnreadableError
from icre_jax.files import json_files
from icre_jax.files.json_files import parse_json, read_json, read_json_object


def test_json_within_the_limits(tmp_path):
    value = {"a": [1, -2.5, None, True, '[[[[{\\"', {"b": "\u00e9\\"}], "c": 10**18}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == read_json_object(tmp_path / "a.json") == value
    deep = "[" * json_files.MOST_DEPTH + "]" * json_files.MOST_DEPTH
    assert json.dumps(parse_json(deep)) == deep
    assert parse_json('"' + "[" * 10_000 + '"') == "[" * 10_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 65 + "]" * 65, "nested 65 deep; at most 64"),
        ("[" * 1_000_000, "nested 1,000,000 deep; at most 64"),
        ('{"a":' * 100_000, "nested 100,000 deep"),
        ("9" * 5000, "number of 5,000 digits; at most 40"),
        ("[-" + "9" * 41 + "]", "number of 42 digits"),
        ("0." + "3" * 5000, "number of 5,002 digits"),
        ('{"a": 1, "b": 2, "a": 3}', "names 'a' twice"),
        ('{"a": 1', "Expecting"),
        ('"' + '\\"' * 500_000, "Unterminated string"),
        ('"abc\\', "Unterminated string"),
        ("", "Expecting value"),
        (b"\xff", "can't decode"),
    ],
)  # fmt: skip
def test_json_past_the_limits(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnreadableError, match=words):
        read_json(path)


def test_json_of_too_many_values_or_another_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MOST_VALUES", 10)
    assert parse_json('[1, 2, 3, ",,,,,,,,,,"]')[:3] == [1, 2, 3]
    with pytest.raises(ValueError, match="up to 12 values; at most 10"):
        parse_json("[1,2,3,4,5,6,7,8,9,10,11]")
    for text, words in (("[]", "a list"), ("null", "null"), ("true", "a truth value"), ("3", "a number"), ('""', "a")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UnreadableError, match=f"it must hold an object, not {words}"):
            read_json_object(tmp_path / "a.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_json_is_read_as_pythons_own_reader_does(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


class RepeatedError(Exception):
    """Python's own reader takes the last of two equal names."""


def read_without_repeats(text):
    try:
        return parse_json(text)
    except ValueError as error:
        raise (RepeatedError if "twice" in str(error) else error) from error


@settings(max_examples=200, deadline=None)
@given(st.text('[]{}"\\,a1:', max_size=40))
def test_what_pythons_own_reader_refuses_is_refused(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 (any)
            parse_json(text)
    else:
        with contextlib.suppress(RepeatedError):
            assert read_without_repeats(text) == expected
