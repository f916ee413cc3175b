import json

import pytest
import torch
from safetensors.torch import save_file

from shards.errors import CheckpointError
from shards.tensor_file import FileReader, read_header


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_the_header_tells_shape_dtype_and_place(file):
    header = read_header(file)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in header.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("BF16", (4,)),
    }
    buffer = bytearray(12)
    with FileReader(file) as reader:
        reader.read_into(memoryview(buffer), header["a"].offset + 12)
    assert torch.frombuffer(buffer, dtype=torch.float32).tolist() == [3, 4, 5]
    assert reader.bytes_read == 12


def test_a_file_cut_short_is_refused_before_it_is_read(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"some\.safetensors is cut short"):
        read_header(file)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(file):
    size = file.stat().st_size
    with FileReader(file) as reader, pytest.raises(CheckpointError, match=f"ended at byte {size}"):
        reader.read_into(memoryview(bytearray(8)), size - 4)


def _with_header(header: object) -> bytes:
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{x",
        _with_header(["a"]),
        _with_header({"a": {"dtype": "F32", "shape": [2]}}),
        _with_header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
    ],
    ids=["empty", "lfs pointer", "huge header", "no json", "no object", "no offsets", "bad size"],
)
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        read_header(path)
