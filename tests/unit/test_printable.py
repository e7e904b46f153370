"""What is shown holds no control character and no secret of a URL."""

import pickle
import string
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atlaszarr.errors import AtlaszarrWarning, ServiceError, printable
from atlaszarr.stores.locations import shown

SECRET = "s3cr3t0f7h3t35t"
PROTOCOLS = ("http", "https", "ftp", "s3", "s3a", "gs", "gcs", "az", "sftp", "smb", "webdav", "simplecache::https")
_CASES = st.sampled_from([str.lower, str.upper, str.title])
_PLAIN = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=8)
#: The characters of base64 and of signatures.
_AROUND = st.text(string.ascii_letters + string.digits + "+/=%&?#:;,.-_", max_size=6)


@st.composite
def urls(draw):
    """A URL with the secret as password, parameter or fragment, and in front of it any host and path."""
    start = draw(_CASES)(draw(st.sampled_from(PROTOCOLS))) + "://"
    host = draw(_PLAIN) + draw(st.sampled_from(["", ":8080"]))
    path = "/".join(draw(st.lists(_PLAIN, max_size=3)))
    secret = "x" + draw(_AROUND) + SECRET + draw(_AROUND)
    where = draw(st.sampled_from(["user", "parameter", "fragment", "both"]))
    if where == "user":
        return f"{start}{draw(_PLAIN)}:{secret}@{host}/{path}"
    if where == "both":
        return f"{start}{draw(_PLAIN)}:{secret}@{host}/{path}?X-Amz-Signature={secret}#{secret}"
    if where == "parameter":
        names = draw(st.sampled_from(["sig", "X-Amz-Signature", "token", "view", "a=b&key"]))
        return f"{start}{host}/{path}?{names}={secret}" if names != "view" else f"{start}{host}/{path}?k&view={secret}"
    return f"{start}{host}/{path}#{secret}"


@given(urls())
@example("http://0:xs3cr3t0f7h3t35t::@0/")
@example("s3://key:x/s3cr3t0f7h3t35t::@bucket/x")
def test_a_url_is_shown_without_its_secrets(url):
    assert SECRET not in shown(url)
    assert shown(shown(url)) == shown(url)


@given(
    urls(), st.text(max_size=10), st.sampled_from(["{}", "'{}'", "({}),", '{{"url":"{}"}}', "a {} b", "url={}: gone"])
)
def test_a_text_is_printed_without_the_secrets_of_its_urls(url, words, frame):
    line = printable(f"{words}\n{frame.format(url)} {words}")
    assert SECRET not in line
    assert printable(line) == line


@given(st.text())
def test_any_text_is_one_printable_line(text):
    assert all(char.isprintable() or char.isspace() for char in printable(text))
    assert len(printable(text).splitlines()) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "https://api.brain-map.org/api/v2/data/query.json?criteria=model::Gene,rma::options[num_rows$eq1]: no rows",
        "https://host:8080/api/v2/section_image_download/1?downsample=3&quality=75 answered with HTTP status 500",
        "s3://bucket/me@lab/x.ome.zarr/0/c/0/0/0 is missing",
        "abfs://container@account.dfs.core.windows.net/x",
        "http://[::1]:8000/x.zarr, http://host:80/a@b.zarr",
        "memory://x; zip://inner.nrrd::https://host/x.zip",
        "file:///data/what?.nrrd and ratio 3:4, model::Gene",
        "/data/a b/x.zarr: cortex [bold] 100 %",
    ],
)
def test_a_text_without_secrets_is_unchanged(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("https://host/a;token=x/b.nrrd?y", "https://host/a/b.nrrd"),
        ("s3:/KEY:a/b@bucket/x", "s3:/bucket/x"),
        ("http://u:p?w@h/x", "http://h/x"),
        ("https://h/x?u=https://b/y&sig=S next", "https://h/x next"),
        ("\x1b[31mred\x07\n\u202e\ud800\x9b", r"\x1b[31mred\x07\n\u202e\ud800\x9b"),
    ],
)
def test_secrets_and_control_characters_are_replaced(text, line):
    assert printable(text) == line


def test_messages_of_errors_and_warnings_are_printable_also_after_pickling():
    text = "a\x1b https://me:word@host/x?sig=1"
    for error in (ServiceError(text, code="x"), pickle.loads(pickle.dumps(ServiceError(text, code="x")))):
        assert (str(error), error.code) == (r"a\x1b https://host/x", "x")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(text, AtlaszarrWarning, stacklevel=1)
    assert str(caught[0].message) == r"a\x1b https://host/x"
