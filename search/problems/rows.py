"""Rows of a data file: JSON lines, a JSON document, CSV or Parquet, plain or through gzip."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from search.errors import ConfigError, DataError
from search.support.extras import install

MAX_LINE_BYTES = 1 << 20
"""A longer line is refused, and never read further."""

MAX_DOCUMENT_BYTES = 1 << 30
"""A longer JSON document is refused: it has to be held in memory."""

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Kinds of files; all but the last may end in .gz as well."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: file, and line (from 1) or, where there are no lines, row (from 0).
        name: what identifies it in the file where nothing in it does: its number from 0, or its key.
        values: its fields.
    """

    where: str
    name: str
    values: Mapping[str, Any]


def file_rows(file: Path) -> Iterator[Row]:
    """The rows of a file, in its order; what follows the last row that is asked for is not looked at.

    A byte-order mark is left out. A .json file is an array of objects, an object with one such array or with an object
    for each key, or JSON lines in spite of its name.

    Raises:
        ConfigError: a kind of file that is not known, or that needs a library that is not installed.
        DataError: the file is broken; names the line or row.
    """
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    if suffix == ".parquet":
        yield from _parquet(file)
        return
    if suffix not in (*SUFFIXES, ".ndjson"):
        raise ConfigError(f"data {str(file)!r}: accepted are files {', '.join(SUFFIXES)}, with .gz or without")
    with _opened(file) as stream:
        if suffix == ".json":
            yield from _document(file, stream)
        elif suffix in (".csv", ".tsv"):
            yield from _table(file, stream, "\t" if suffix == ".tsv" else ",")
        else:
            yield from _lines(file, stream)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked and after its byte-order mark; errors of reading are of `DataError`."""
    try:
        with file.open("rb") as plain:
            start = plain.read(len(_GZIP))
            plain.seek(0)
            if file.name.lower().endswith(".gz") and not start.startswith(_GZIP):
                raise DataError(f"{file}: not gzip, in spite of its name")
            is_packed = start.startswith(_GZIP)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=plain)) if is_packed else plain
            head = stream.read(len(_BOM))
            if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"{file}: UTF-16 text; UTF-8 is accepted")
            if head != _BOM:
                stream.seek(0)
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file}: broken gzip ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _lines(file: Path, stream: IO[bytes]) -> Iterator[Row]:
    # No line is read further than it may be long.
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
        where = f"{file}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{where}: longer than {MAX_LINE_BYTES} bytes")
        if line.strip():
            yield _row(where, str(number - 1), _parsed(where, line))


def _parsed(where: str, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not valid JSON; a line of its own for each problem is accepted") from None


def _row(where: str, name: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise DataError(f"{where}: must be an object with the fields of a problem")
    return Row(where, name, values)


def _document(file: Path, stream: IO[bytes]) -> Iterator[Row]:
    text = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DataError(f"{file}: longer than {MAX_DOCUMENT_BYTES} bytes; JSON lines have no such bound")
    try:
        document = json.loads(text.decode("utf-8")) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip()[:1] == b"{":
            yield from _lines(file, io.BytesIO(text))
            return
        raise DataError(f"{file}, line {error.lineno}: not valid JSON") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file}: not valid JSON") from None
    for number, (name, values) in enumerate(_entries(file, document)):
        yield _row(f"{file}, row {number}", name, values)


def _entries(file: Path, document: Any) -> Iterator[tuple[str, Any]]:
    """What a document lists, each under its number or key."""
    if isinstance(document, dict):
        lists = {key: value for key, value in document.items() if _is_list_of_objects(value)}
        if len(lists) == 1:
            (document,) = lists.values()
        elif lists:
            raise DataError(f"{file}: holds several lists ({', '.join(lists)}); one is accepted")
        elif document and all(isinstance(value, dict) for value in document.values()):
            yield from document.items()
            return
        elif document:
            document = [document]
    if not isinstance(document, list | dict):
        raise DataError(f"{file}: must be an array of objects, or an object with one")
    yield from ((str(number), values) for number, values in enumerate(document))


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _table(file: Path, stream: IO[bytes], delimiter: str) -> Iterator[Row]:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    rows = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        for number, values in enumerate(rows):
            where = f"{file}, line {rows.line_num}"
            if None in values or None in values.values():
                raise DataError(f"{where}: has not as many fields as the first line")
            yield Row(where, str(number), values)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}, after line {rows.line_num}: not a valid table ({error})") from None
    finally:
        text.detach()


def _parquet(file: Path) -> Iterator[Row]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"data {str(file)!r} needs pyarrow: {install('bench')}") from None
    number = 0
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches():
                for values in batch.to_pylist():
                    yield Row(f"{file}, row {number}", str(number), values)
                    number += 1
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a Parquet file that can be read ({' '.join(str(error).split())[:200]})") from None
