"""What is kept in the store comes back as it was."""

import pytest
import zstandard

from jobs.codec.chunk import BrokenChunk, Failure, compress, decompress, pack_failures, unpack_failures


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 4096])
def test_chunk_comes_back_as_it_was(data):
    assert decompress(compress(data)) == data


def test_compressed_chunk_says_how_long_it_is():
    assert zstandard.frame_content_size(compress(b"1,2,3\n" * 1000)) == 6000


def test_chunk_that_is_cut_short_is_not_taken_for_whole():
    with pytest.raises(BrokenChunk):
        decompress(compress(b"1,2,3\n" * 1000)[:-3])


def test_failures_come_back_as_they_were():
    failures = [
        Failure(0, "invalid_number", "RM", "not a number", '"x ""é""\r\n",日'),
        Failure(17, "model_error", None, "ValueError", ""),
    ]
    assert unpack_failures(pack_failures(failures)) == failures
    assert unpack_failures(pack_failures([])) == []
