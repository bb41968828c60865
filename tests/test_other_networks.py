"""Networks besides the study's: GluonCV's others, and users' own files."""

import dataclasses
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prognosis_dask.config.job import DeepSection, load_job
from prognosis_dask.errors import Code, JobError, MissingExtraError, WeightsError
from prognosis_dask.features.deep import through_network
from prognosis_dask.networks.catalogue import NETWORKS
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.engine import describe_engine, load_engine, settle_engine
from prognosis_dask.storage.ledger import TaskResult
from tests.onnx_file import write_mean_network, write_scaled_network

RNG = np.random.default_rng(2)
REGIONS = [RNG.integers(0, 256, (length, 128, 128), dtype=np.uint8) for length in (3, 9, 40)]


@pytest.mark.parametrize("name", ["i3d_resnet50_v1_kinetics400", "slowfast_4x16_resnet50_kinetics400"])
def test_gluoncvs_other_networks_give_gluoncvs_own_values(gluon, name):
    import mxnet as mx

    section = DeepSection(network=name, weights="untrained:4", engine="gluon")
    engine = load_engine(section)
    net = gluon.model_zoo.get_model(name, pretrained=False, pretrained_base=False)
    from prognosis_dask.networks.weights import resolve_weights

    for key, value in resolve_weights("untrained:4", NETWORKS[name]).values.items():
        net._collect_params_with_prefix()[key].set_data(mx.nd.from_numpy(value.copy()))
    expected = net(mx.nd.from_numpy(NETWORKS[name].clip.make(REGIONS[1])[None])).asnumpy()
    values = engine.features_of_frames(REGIONS[1:2])
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    pooled = load_engine(dataclasses.replace(section, output="pooled")).features_of_frames(REGIONS[1:2])
    classifier = net.fc.weight.data().asnumpy(), net.fc.bias.data().asnumpy()
    np.testing.assert_allclose(pooled @ classifier[0].T + classifier[1], values, rtol=1e-3, atol=1e-3)
    assert describe_engine(section).labels[0] == "abseiling"
    assert describe_engine(section).feature_names == engine.feature_names


def test_a_slowfast_clip_of_another_length_is_refused(gluon):
    engine = load_engine(DeepSection(network="slowfast_4x16_resnet50_kinetics400", weights="untrained:4"))
    with pytest.raises(ValueError, match=r"expected float32 of shape \(n, 3, 36, 224, 224\)"):
        engine.features(np.zeros((1, 3, 40, 224, 224), np.float32))


def test_a_network_runs_on_its_engines_only():
    with pytest.raises(
        JobError, match="'torch', which does not run i3d_resnet50_v1_kinetics400; expected 'auto' or 'gl"
    ):
        settle_engine(DeepSection(network="i3d_resnet50_v1_kinetics400", engine="torch"))
    with pytest.raises(JobError, match=r"expected 'auto' or 'onnx'"):
        settle_engine(DeepSection(network="file:net.onnx", engine="gluon"))
    with pytest.raises(JobError, match=r"precision is 'bfloat16'.*expected one of 'float32'"):
        settle_engine(DeepSection(network="file:net.pt", precision="bfloat16"))


def test_torchvision_where_it_is_not_installed_is_asked_for(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match="torchvision"):
        load_engine(DeepSection(network="r3d_18_kinetics400", weights="untrained:0"))


@pytest.mark.parametrize(("name", "pooled"), [("r3d_18_kinetics400", 512), ("s3d_kinetics400", 1024)])
def test_torchvisions_networks_give_torchvisions_own_values(name, pooled, tmp_path):
    pytest.importorskip("torchvision", exc_type=ImportError)
    import torch
    from torchvision.models import video

    module = getattr(video, name.removesuffix("_kinetics400"))(weights=None).eval()
    torch.save(module.state_dict(), tmp_path / "net.pth")
    section = DeepSection(network=name, weights=f"file:{tmp_path / 'net.pth'}")
    network, clip = NETWORKS[name], NETWORKS[name].clip.make(REGIONS[2])[None]
    with torch.inference_mode():
        expected = module(torch.from_numpy(clip)).numpy()
    values = load_engine(section).features_of_frames(REGIONS[2:])
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert load_engine(dataclasses.replace(section, output="pooled")).features(clip).shape == (1, pooled)
    weights = getattr(video, {"r3d_18": "R3D_18_Weights", "s3d": "S3D_Weights"}[name.removesuffix("_kinetics400")])
    theirs = weights.KINETICS400_V1
    assert describe_engine(section).labels == tuple(theirs.meta["categories"])
    ours = network.clip
    preset = theirs.transforms()
    assert (list(ours.mean), list(ours.std), list(ours.size)) == (preset.mean, preset.std, preset.crop_size)
    assert ours.resized[0] == preset.resize_size[0]
    drawn = DeepSection(network=name, weights="untrained:3")
    first, again = (load_engine(drawn).features(clip) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    (tmp_path / "net.pth").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(WeightsError, match="does not fit torchvision's"):
        load_engine(section)


# --- a user's own file: 3 channels, 8 frames of 64 x 48 -------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small network of convolution and mean, exported in a process of its own: exporting warns."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("exported") / "net.pt"
    code = (
        "import sys, torch; torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Conv3d(3, 12, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1))\n"
        "torch.jit.save(torch.jit.script(net), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture
def torchscript(exported: bytes, tmp_path: Path) -> DeepSection:
    """A job's section about that network."""
    (tmp_path / "net.pt").write_bytes(exported)
    return DeepSection(network=f"file:{tmp_path / 'net.pt'}", input_shape=(3, 8, 64, 48))


@pytest.fixture
def onnx(tmp_path: Path) -> DeepSection:
    """A network that gives the mean of each channel over time and space."""
    pytest.importorskip("onnxruntime")
    write_mean_network(tmp_path / "net.onnx", (1, 3, 8, 64, 48))
    return DeepSection(network=f"file:{tmp_path / 'net.onnx'}", input_shape=(3, 8, 64, 48))


def test_a_torchscript_file_gives_its_own_values(torchscript):
    import torch

    engine = load_engine(torchscript)
    described = describe_engine(torchscript)
    assert described.feature_names == engine.feature_names
    assert (described.feature_names[0], len(described.feature_names)) == ("logit_00", 12)
    assert described.labels == ()
    assert all(isinstance(value, str) and value for value in described.provenance.values())
    clips = np.stack([ClipRule(frames=8, resized=(64, 48), size=(64, 48)).make(region) for region in REGIONS])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 12, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1))
    with torch.inference_mode():
        expected = net(torch.from_numpy(clips)).flatten(1).numpy()
    values = engine.features_of_frames(REGIONS)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(engine.features_of_frames(REGIONS[1:2]), values[1:2])


def test_an_onnx_file_gives_its_own_values(onnx):
    settled = settle_engine(onnx)
    assert settled.engine == "onnx"
    clips = np.stack([ClipRule(frames=8, resized=(64, 48), size=(64, 48)).make(region) for region in REGIONS])
    values = load_engine(settled).features_of_frames(REGIONS)
    np.testing.assert_allclose(values, clips.mean(axis=(2, 3, 4)), rtol=1e-4, atol=1e-5)
    assert describe_engine(onnx).feature_names == ("logit_0", "logit_1", "logit_2")


@pytest.mark.parametrize(
    ("kind", "expected"), [("torchscript", "a TorchScript file"), ("onnx", "a network that onnxruntime can run")]
)
def test_what_the_job_declares_has_to_fit_the_file(kind, expected, request):
    section = request.getfixturevalue(kind)
    with pytest.raises(
        JobError, match=r"does not take what deep\.input_shape declares, float32 of shape \(1, 1, 8, 64"
    ):
        load_engine(dataclasses.replace(section, input_shape=(1, 8, 64, 48)))
    with pytest.raises(WeightsError, match="expected 00ff"):
        describe_engine(dataclasses.replace(section, weights_sha256="00ff"))
    Path(section.network.removeprefix("file:")).write_bytes(b"<!DOCTYPE html>" * 9)
    with pytest.raises(WeightsError, match=f"is not {expected}"):
        load_engine(section)


def test_weights_beside_an_onnx_file_and_a_second_output_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    path, shape = tmp_path / "net.onnx", (1, 3, 8, 64, 48)
    section = DeepSection(network=f"file:{path}", input_shape=shape[1:])
    write_scaled_network(path, shape)
    clip = RNG.random(shape, np.float32)
    np.testing.assert_allclose(load_engine(section).features(clip)[0], 2 * clip.mean((0, 2, 3, 4)), rtol=1e-4)
    write_scaled_network(path, shape, weights_apart=True)  # the digest of this file would not tell of other weights
    with pytest.raises(WeightsError, match=r"keeps weights in another file; export it as one"):
        load_engine(section)
    write_scaled_network(path, shape, outputs=2)
    with pytest.raises(WeightsError, match=r"1 inputs and 2 outputs \(mean, scaled\), expected one of each"):
        load_engine(section)


def test_networks_of_several_tensors_of_as_many_values_as_frames_and_of_torch_export_are_refused(tmp_path):
    pytest.importorskip("torch")
    code = """
import sys, torch
class PerFrame(torch.nn.Module):
    def forward(self, x): return x.mean((1, 3, 4))
class Pair(torch.nn.Module):
    def forward(self, x): return x.mean((2, 3, 4)), x
for module in (PerFrame(), Pair()):
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 8, 64, 48)), f"{sys.argv[1]}/{type(module).__name__}.pt")
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True)
    section = DeepSection(network=f"file:{tmp_path / 'PerFrame.pt'}", input_shape=(3, 0, 64, 48))
    engine = load_engine(section)
    regions = [*REGIONS, RNG.integers(0, 256, (16, 128, 128), np.uint8)]
    read = [TaskResult(str(n), "deep", "", None, {"total": 0.0}, {"input": r}) for n, r in enumerate(regions)]
    problems = [result.problem and result.problem.code for result in through_network(read, engine, 1)]
    assert problems == [Code.CLIP_INVALID] * 3 + [None], "as many frames as were tried"
    with pytest.raises(JobError, match="it gives a tuple, expected one tensor"):
        load_engine(replace(section, network=f"file:{tmp_path / 'Pair.pt'}"))
    (tmp_path / "net.pt2").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"net\.pt2 is torch\.export's: torch evaluates text of such a file as code"):
        load_engine(replace(section, network=f"file:{tmp_path / 'net.pt2'}"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": ()}, r"deep.input_shape is \[\], expected \[channels"),
        ({"input_shape": (2, 8, 64, 64)}, "expected .channels .1 or 3."),
        ({"input_mean": (0.5,)}, "expected 3 numbers each"),
        ({"input_std": (0.5, 0.5, 0.0)}, "above zero"),
        ({"weights": "untrained:1"}, "the file holds its own weights"),
        ({"network": "i3d_inceptionv1_kinetics400"}, "the network is known, and so is its input"),
    ],
)
def test_a_job_that_does_not_fit_a_file_says_what_is_wrong(torchscript, changes, message):
    section = dataclasses.replace(torchscript, **changes)
    with pytest.raises(JobError, match=message):
        describe_engine(section)


def test_a_file_that_is_missing_is_named(torchscript, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read the network .*none\.pt: No such file"):
        describe_engine(dataclasses.replace(torchscript, network=f"file:{tmp_path}/none.pt"))


def test_the_path_of_a_network_is_taken_from_the_job_files_folder(tmp_path):
    (tmp_path / "job.toml").write_text('deep = { network = "file:net.pt", input_shape = [1, 0, 64, 64] }')
    deep = load_job(tmp_path / "job.toml").deep
    assert deep.network == f"file:{tmp_path / 'net.pt'}"
    assert deep.input_shape == (1, 0, 64, 64)
