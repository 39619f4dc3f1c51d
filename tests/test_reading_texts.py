"""`icre_jax.files.texts`: text, rows and whole numbers, within limits."""

import pytest

from icre_jax.errors import UnreadableError
from icre_jax.files import texts
from icre_jax.files.texts import parse_rows, read_rows, read_text, whole_number


def test_text_and_its_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\xc3\xa4\n")
    assert read_text(path).splitlines() == ["a", "bä"]
    path.write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(UnreadableError, match="line 3 is no UTF-8 text"):
        read_text(path)
    path.write_bytes(b"a\n" + b"b" * 70_000)
    with pytest.raises(UnreadableError, match="a line of 70,000 characters; at most 65,536"):
        read_text(path)
    assert len(read_text(path, longest_line=70_000)) == 70_002
    monkeypatch.setattr(texts, "MOST_LINES", 3)
    path.write_bytes(b"\n" * 3)
    with pytest.raises(UnreadableError, match="it has 4 lines; at most 3"):
        read_text(path)


def test_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,"b\nc"\n\nd,"e""f"\n', encoding="utf-8-sig")
    assert list(read_rows(path)) == [(2, ["a", "b\nc"]), (3, []), (4, ["d", 'e"f'])]
    for text, words in (('a,"b', "unexpected end"), ('"a"b', "expected after"), ('"' + "a\n" * 70_000, "field larger")):
        path.write_text(text)
        with pytest.raises(UnreadableError, match=words):
            list(read_rows(path))
        with pytest.raises(ValueError, match=words):
            list(parse_rows(text))


def test_whole_numbers():
    assert [whole_number(text) for text in ("0", "007", "2147483647", "0" * 5000 + "3")] == [0, 7, 2**31 - 1, 3]
    for text in ("", "-1", "+1", " 1", "1.0", "1_0", "٣", "²", "2147483648", "9" * 5000):
        assert whole_number(text) is None
    assert whole_number("12", largest=11) is None
