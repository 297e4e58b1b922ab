"""URLs: one picture, or in object storage all below a prefix. Workers fetch them."""

from collections.abc import Iterator

from pgclip.cli.indexing import folders
from pgclip.cli.indexing.entries import Entry, Passed, Selection
from pgclip.errors import InvalidItem
from pgclip.keys import url_key
from pgclip.settings import masked


def entries(url: str, selection: Selection, passed: Passed) -> Iterator[Entry]:
    """A URL, or if it ends in a slash all pictures below it. Raises InvalidItem."""
    if not url.endswith("/"):
        yield Entry(url_key(url), None, url, None, {})
        return
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise InvalidItem(f"{masked(url)}: pip install 'pgclip[{scheme}]' lists it") from error
    try:
        files, prefix = url_to_fs(url)
        names = sorted(files.find(prefix))
    except Exception as error:  # of as many kinds as there are services
        raise InvalidItem(f"{masked(url)} can't be listed: {masked(str(error))}") from error
    for name in names:
        ending = name.rpartition("/")[2].rpartition(".")[2]
        if folders.is_picture_by_name(name, selection):
            whole = url + name.removeprefix(prefix.rstrip("/")).lstrip("/")
            yield Entry(url_key(whole), None, whole, None, {})
        else:
            passed.over(f".{ending.lower()}" if "." in name.rpartition("/")[2] else "no ending")
