import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shards.errors import CheckpointError, RequestError
from shards.grid import Grid
from shards.vision_model import VisionEncoder
from tests.shards.reference import FAMILIES, save_hf, save_mistral

CPU = torch.device("cpu")
FAMILY = FAMILIES["large"]
PROMPT = FAMILY.prompts()["three pictures"]


@pytest.fixture(scope="module")
def model():
    return FAMILY.model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_mistral(model, tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return VisionEncoder.load(folder, device=CPU, dtype="float32")


@pytest.mark.parametrize("layout", ["mistral", "hf"])
def test_features_equal_transformers(model, folder, tmp_path, layout):
    folder = folder if layout == "mistral" else save_hf(model, tmp_path / "hf")
    encoder = VisionEncoder.load(folder, device=CPU, dtype="float32")
    features = encoder.encode(PROMPT.patches(), PROMPT.grids)
    with torch.inference_mode():
        expected = [
            model.model.vision_tower(picture.unsqueeze(0)).last_hidden_state[0]
            for picture in PROMPT.pixels
        ]
    torch.testing.assert_close(features, torch.cat(expected), rtol=0, atol=1e-5)


def test_packed_equals_alone(encoder):
    packed = encoder.encode(PROMPT.patches(), PROMPT.grids)
    sizes = [grid.patches for grid in PROMPT.grids]
    alone = [
        encoder.encode(patches, [grid])
        for patches, grid in zip(PROMPT.patches().split(sizes), PROMPT.grids, strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.parametrize("threads", [1, 2])
def test_another_picture_in_the_pass_changes_no_bit_of_the_others(folder, kernels, threads):
    encoder = VisionEncoder.load(folder, device=CPU, dtype="float32", kernels=kernels)
    grids = [Grid(2, 3), Grid(5, 4), Grid(1, 1), Grid(7, 6), Grid(5, 4)]
    sizes = [grid.patches for grid in grids]
    pictures = list(torch.randn(sum(sizes), 768).split(sizes))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        features = encoder.encode(torch.cat(pictures), grids).split(sizes)
        for changed, grid in enumerate(grids):
            others = list(pictures)
            others[changed] = 1e3 * torch.randn(grid.patches, 768)
            again = encoder.encode(torch.cat(others), grids).split(sizes)
            assert [torch.equal(*pair) for pair in zip(features, again, strict=True)] == [
                place != changed for place in range(len(grids))
            ]
    finally:
        torch.set_num_threads(before)


def test_native_kernels_give_a_picture_the_same_bits_alone_and_in_any_company(folder):
    encoder = VisionEncoder.load(folder, device=CPU, dtype="float32", kernels="native")
    grids = [Grid(2, 3), Grid(5, 4), Grid(1, 1), Grid(7, 6)]
    sizes = [grid.patches for grid in grids]
    pictures = torch.randn(sum(sizes), 768).split(sizes)
    packed = encoder.encode(torch.cat(pictures), grids).split(sizes)
    for picture, grid, features in zip(pictures, grids, packed, strict=True):
        assert torch.equal(encoder.encode(picture, [grid]), features)


def test_rows_and_columns_are_told_apart(encoder):
    patches = torch.randn(6, 768)
    wide, tall = (encoder.encode(patches, [Grid(*shape)]) for shape in ((2, 3), (3, 2)))
    assert (wide - tall).abs().max() > 1e-2


def test_arrays_and_dtypes(folder):
    encoder = VisionEncoder.load(folder, device=CPU, dtype="bfloat16")
    patches = PROMPT.patches().numpy()
    patches.flags.writeable = False  # as arrays from an object store are
    features = encoder.encode(patches, PROMPT.grids)
    assert features.dtype == torch.bfloat16
    assert tuple(features.shape) == (len(patches), 2 * FAMILY.vision_head_dim)


@pytest.mark.parametrize(
    ("patches", "grids"),
    [
        (np.zeros((5, 768)), [Grid(2, 3)]),
        (np.zeros((6, 767)), [Grid(2, 3)]),
        (np.zeros((0, 768)), []),
    ],
)
def test_patches_that_do_not_fit_their_grids_are_refused(encoder, patches, grids):
    with pytest.raises(RequestError, match="patches"):
        encoder.encode(patches, grids)


def test_only_vision_tensors_are_needed_and_none_may_be_missing(folder, tmp_path):
    vision = {
        name: tensor
        for name, tensor in load_file(folder / "consolidated.safetensors").items()
        if name.startswith("vision_encoder.")
    }
    (tmp_path / "params.json").write_text((folder / "params.json").read_text())
    save_file(vision, tmp_path / "consolidated.safetensors")
    VisionEncoder.load(tmp_path, device=CPU, dtype="float32")
    del vision["vision_encoder.ln_pre.weight"]
    save_file(vision, tmp_path / "consolidated.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: vision_encoder\.ln_pre\.weight"):
        VisionEncoder.load(tmp_path, device=CPU, dtype="float32")
