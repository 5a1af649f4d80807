"""Text files as people and their programs leave them."""

import codecs
import csv
import io
from pathlib import Path
from typing import Final

__all__ = ["csv_rows", "read_text"]

_MARKS: Final = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(file: Path) -> str:
    """Read a text: UTF-8 with or without a mark, or UTF-16 with one, as Excel writes it.

    Raises:
        ValueError: If it is neither, with the line.
    """
    content = file.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file}, line {line}: must be UTF-8, got the byte 0x{content[error.start]:02x} there. Save it as UTF-8."
        ) from None


def csv_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV with a header, its columns separated by commas, or by semicolons or tabs where the header is.

    Returns:
        The line of every row, and its values by column.
    """
    text = read_text(file)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    return [(reader.line_num, row) for row in reader]
