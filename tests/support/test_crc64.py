"""The storage's CRC-64, compared with its check value and with Microsoft's own implementation."""

from __future__ import annotations

from azure.storage.extensions import checksums
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.support.crc64 import crc64


def test_check_value() -> None:
    """The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms."""
    assert crc64(memoryview(b"123456789")) == 0xAE8B14860A799888


@given(st.binary(max_size=5000), st.integers(0, 5000))
def test_is_what_the_storage_takes(data: bytes, at: int) -> None:
    assert crc64(memoryview(data)) == checksums.crc64.compute(data, 0)
    assert crc64(memoryview(data[at:]), crc64(memoryview(data[:at]))) == checksums.crc64.compute(data, 0)
