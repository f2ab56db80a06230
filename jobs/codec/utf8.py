"""Text that arrives in pieces of bytes, checked to be UTF-8."""

import codecs

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Utf8:
    """Lets whole UTF-8 characters through, without a byte order mark, and tells where the first wrong byte is."""

    def __init__(self) -> None:
        self._passed_bytes = 0
        self._begun = b""  # a character whose other bytes have not arrived
        self._at_start = True

    def feed(self, data: bytes) -> tuple[bytes, int | None]:
        """The characters that are whole by now, up to the first wrong byte, and that byte's offset in the body."""
        if not self._begun and data.isascii():
            self._passed_bytes += len(data)
            self._at_start = self._at_start and not data
            return data, None
        data = self._begun + data
        try:
            _, end = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            return self._pass(data, error.start), self._passed_bytes
        return self._pass(data, end), None

    def finish(self) -> int | None:
        """The offset of a character that the body's end has cut short."""
        return self._passed_bytes if self._begun else None

    def _pass(self, data: bytes, end: int) -> bytes:
        text, self._begun = data[:end], data[end:]
        self._passed_bytes += end
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(_BYTE_ORDER_MARK)
        return text
