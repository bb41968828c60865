"""The torch engine beside Gluon's, and what becomes of everything that it cannot use."""

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.cli.main import main
from prognosis_dask.config.job import DeepSection, FramesSection, ImageSection, Job
from prognosis_dask.errors import CaseError, ClusterError, Code, JobError, WeightsError
from prognosis_dask.features.deep import settle_memory_formats, through_network
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import make_frames
from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.engine import (
    cases_per_task,
    check_features,
    describe_engine,
    frames_together,
    load_engine,
    settle_engine,
)
from prognosis_dask.networks.weights import convert_weights, parse_safetensors, resolve_weights, write_safetensors
from prognosis_dask.storage.ledger import TaskResult
from tests.dicom_helpers import case_of

torch = pytest.importorskip("torch")

from prognosis_dask.networks import torch_engine  # noqa: E402
from prognosis_dask.networks.torch_engine import TorchEngine, expect_precision, repeatable  # noqa: E402

NETWORK = find_network("i3d_inceptionv1_kinetics400")


def section(**values):
    return DeepSection(**({"weights": "untrained:3", "engine": "torch"} | values))


def relative(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


def test_a_memory_format_is_measured_once_on_one_worker_and_holds_for_the_run(monkeypatch):
    monkeypatch.setattr(torch_engine, "_TRYING", 0.0)
    job = Job("formats", deep=DeepSection(weights="untrained:3", memory_format="measured"))
    told: list[str] = []

    settled = settle_memory_formats(job, None, map, told.append)

    rates = {name: float(rate) for name, rate in re.findall(r"(\w+) ([\d.e+-]+) clips/s", told[0])}
    assert set(rates) == {"channels_last", "contiguous"}
    assert settled.deep.memory_format == max(rates, key=rates.__getitem__)
    other = min(rates, key=rates.__getitem__)
    earlier = replace(job, deep=replace(job.deep, memory_format=other))
    again = settle_memory_formats(job, earlier, forbidden, told.append)
    assert (again, told[1]) == (earlier, f"deep.memory_format = {other!r}: as this run began")
    with pytest.raises(AssertionError):  # what was measured for another network says nothing of this one
        settle_memory_formats(
            job, replace(earlier, deep=replace(earlier.deep, output="pooled")), forbidden, told.append
        )
    gpu = replace(job.deep, device="gpu", memory_format="contiguous")
    assert describe_engine(gpu).provenance["memory_format"] == "contiguous"
    assert "memory_format" not in describe_engine(replace(gpu, memory_format="channels_last")).provenance
    with pytest.raises(JobError, match=r"deep.memory_format is 'contiguous', which is for .* on device 'gpu'"):
        describe_engine(replace(gpu, device="cpu"))


def forbidden(*_):
    raise AssertionError("measured once more")


def test_both_memory_formats_give_the_same_features_but_for_rounding():
    network = find_network("i3d_inceptionv1_kinetics400")
    weights = resolve_weights("untrained:3", network)
    frames = [np.random.default_rng(5).integers(0, 256, (9, 128, 128)).astype(np.uint8)]
    one, other = (
        TorchEngine(
            network, weights, output="pooled", device="cpu", precision="float32", rows=1, memory_format=name
        ).features_of_frames(frames)
        for name in torch_engine.FORMATS
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())


@pytest.fixture(scope="module")
def engine():
    return load_engine(section())


@pytest.fixture(scope="module")
def gluon_engine(gluon):
    return load_engine(section(engine="gluon"))


def regions(count, slices, seed=0):
    """Frames of balls of several sizes in noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-64:64, -64:64]
    balls = [120 * (rows**2 + columns**2 < (8 + 6 * number) ** 2) for number in range(count)]
    return [(40 + rng.normal(0, 8, (slices, 128, 128)) + ball).clip(0, 255).astype(np.uint8) for ball in balls]


@pytest.fixture(scope="module")
def lung1_002(shared_data, tmp_path_factory):
    """The frames of LUNG1-002, as the study cuts them."""
    folder = shared_data / "lung1_002"
    case = case_of(folder / "ct", next((folder / "rtstruct").iterdir()), (2,), tmp_path_factory.mktemp("lung"))
    roi = load_roi(case, ImageSection())
    return make_frames(roi, FramesSection(placement="reference"), "CT").pixels


@pytest.mark.engines
def test_lung1_002_gives_the_features_of_gluon(engine, gluon_engine, lung1_002):
    assert lung1_002.shape == (26, 128, 128)
    expected = gluon_engine.features_of_frames([lung1_002])
    assert relative(engine.features_of_frames([lung1_002]), expected) < 1e-5
    assert relative(engine.features(ClipRule().make(lung1_002)[None]), expected) < 1e-5


@pytest.mark.engines
@pytest.mark.parametrize("slices", [1, 6, 7, 33, 64])
def test_clips_of_any_length_give_the_features_of_gluon(engine, gluon_engine, slices):
    noise = np.random.default_rng(slices).integers(0, 256, (slices, 128, 128)).astype(np.uint8)
    assert relative(engine.features_of_frames([noise]), gluon_engine.features_of_frames([noise])) < 1e-5


def batch_engine(rows):
    """As on a GPU; here the processor runs it."""
    weights = resolve_weights("untrained:3", NETWORK)
    return TorchEngine(NETWORK, weights, output="logits", device="cpu", precision="float32", rows=rows)


def test_batches_of_several_lengths_give_the_features_of_single_clips_to_rounding(engine):
    batch = batch_engine(4)
    clips = [region for slices in (1, 6, 7, 8, 9, 11) for region in regions(1, slices, seed=slices)]
    together = batch.features_of_frames(clips)
    for values, clip in zip(together, clips, strict=True):
        assert relative(values, engine.features_of_frames([clip])[0]) < 1e-5
    # filled up to the same rows and frames, a clip has the same bits whatever is beside it
    np.testing.assert_array_equal(batch.features_of_frames(clips[3:4])[0], together[3])
    np.testing.assert_array_equal(batch.features_of_frames(clips[::-1])[::-1], together)


def test_batches_give_the_features_of_single_clips_to_rounding(engine):
    clips, batch = regions(5, 7), batch_engine(4)
    together = batch.features_of_frames(clips)
    assert relative(together, engine.features_of_frames(clips)) < 1e-5
    # filled up with zeros to the same number of rows, a clip has the same bits whatever is beside it
    np.testing.assert_array_equal(batch.features_of_frames(clips[3:4])[0], together[3])
    np.testing.assert_array_equal(batch.features_of_frames(clips[::-1])[::-1], together)


def test_features_do_not_depend_on_the_clips_beside_one_nor_on_the_process(engine):
    clips = regions(3, 9)
    together = engine.features_of_frames(clips)
    np.testing.assert_array_equal(engine.features_of_frames(clips[1:2])[0], together[1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(engine.features_of_frames(clips[:1])[0], together[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


WITHOUT_MXNET = """
import sys
sys.modules["mxnet"] = sys.modules["gluoncv"] = None
import numpy as np
from prognosis_dask.networks.engine import load_engine
from prognosis_dask.config.job import DeepSection
frames = np.load(sys.argv[1])
np.save(sys.argv[2], load_engine(DeepSection(engine="torch", weights="untrained:3")).features_of_frames([frames]))
"""


@pytest.mark.engines
def test_another_process_without_mxnet_gives_the_same_bits(engine, tmp_path):
    frames = regions(1, 6)[0]
    np.save(tmp_path / "frames.npy", frames)
    command = [sys.executable, "-c", WITHOUT_MXNET, tmp_path / "frames.npy", tmp_path / "features.npy"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "3"})
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), engine.features_of_frames([frames]))


def test_bfloat16_errs_by_what_the_documentation_says(engine, lung1_002):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    half = load_engine(section(precision="bfloat16"))
    error = relative(half.features_of_frames([lung1_002]), engine.features_of_frames([lung1_002]))
    assert 1e-4 < error < 2e-2


@pytest.mark.engines
def test_auto_is_torch_where_it_is_installed():
    assert settle_engine(section(engine="auto")).engine == "torch"
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "from prognosis_dask.networks.engine import describe_engine, settle_engine\n"
        "from prognosis_dask.config.job import DeepSection\n"
        "print(settle_engine(DeepSection(weights='untrained:3')).engine)\n"
        "describe_engine(DeepSection(weights='untrained:3', engine='torch'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "gluon\n"
    assert "MissingExtraError" in ended.stderr
    assert "pip install 'prognosis-dask[torch]'" in ended.stderr


def test_the_dataset_records_engine_version_device_and_precision():
    described = describe_engine(section(precision="bfloat16"))
    assert (
        described.provenance
        | {
            "engine": "torch",
            "torch": torch.__version__,
            "device": "cpu",
            "precision": "bfloat16",
            "rows": "1",
        }
        == described.provenance
    )
    assert described.provenance != describe_engine(section()).provenance


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"precision": "tf32"}, "'tf32', which engine 'torch' does not have on device 'cpu'"),
        ({"precision": "float16"}, "expected one of 'float32', 'bfloat16'"),
        ({"engine": "gluon", "precision": "bfloat16"}, "engine 'gluon' does not have"),
    ],
)
def test_a_precision_that_is_not_there_is_a_mistake_in_the_job(values, expected):
    with pytest.raises(JobError, match=expected):
        describe_engine(section(**values))


def test_a_gpu_that_is_not_there_is_an_error_not_a_slower_run():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ClusterError, match=r"torch .* sees no GPU here.*deep.device = 'cpu'"):
        load_engine(section(device="gpu"))


@pytest.mark.parametrize(("tf32", "found"), [(False, "ieee"), (True, "tf32")])
@pytest.mark.parametrize("of_process", ["ieee", "tf32"])
def test_float32_rounds_to_tf32_where_it_is_asked_for_and_nowhere_else(tf32, found, of_process):
    # only a GPU rounds; here, that the settings are right around a network, and put back
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.conv.fp32_precision, matmul.fp32_precision
    try:
        cudnn.conv.fp32_precision = matmul.fp32_precision = of_process
        with repeatable(tf32=tf32):
            assert (cudnn.conv.fp32_precision, matmul.fp32_precision) == (found, found)
            assert (cudnn.deterministic, cudnn.benchmark, torch.get_num_threads()) == (True, False, 1)
        assert (cudnn.conv.fp32_precision, matmul.fp32_precision) == (of_process, of_process)
    finally:
        cudnn.conv.fp32_precision, matmul.fp32_precision = before


def short_of_memory(engine, most):
    """Let the engine's network run out of memory for more than ``most`` clips, as a GPU does."""
    forward = engine._network.forward

    def limited(clips, own):
        if len(clips) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return forward(clips, own)

    engine._network.forward = limited


def outcome(number, frames):
    return TaskResult(f"case-{number}", "deep", "digest", None, {"total": 0.0}, {"input": frames})


def test_a_gpu_out_of_memory_goes_on_with_half_the_batch_and_says_so(engine, caplog):
    clips = regions(5, 6)
    small = batch_engine(8)
    short_of_memory(small, 2)
    done = through_network([outcome(i, clip) for i, clip in enumerate(clips)], small, asked=8)
    assert [o.problem for o in done] == [None] * 5
    assert [o.values["rows"] for o in done] == [2] * 5
    assert "2 clips at once from here on" in caplog.text
    values = np.array([o.values["values"] for o in done])
    assert relative(values, engine.features_of_frames(clips)) < 1e-5


def test_a_clip_that_fits_no_memory_is_a_problem_of_its_case():
    small = load_engine(section())
    short_of_memory(small, 0)
    (done,) = through_network([outcome(0, regions(1, 6)[0])], small, asked=1)
    assert done.problem.code is Code.GPU_MEMORY
    assert "not the memory for one clip of 6 frames" in done.problem.reason
    assert done.values == {}


def test_a_clip_shorter_than_the_network_takes_is_a_problem_of_its_case(engine):
    with pytest.raises(ValueError, match=r"expected float32 of shape \(n, 3, 5 or more, 224, 224\)"):
        engine.features(np.zeros((1, 3, 4, 224, 224), np.float32))
    network = replace(NETWORK, min_length=36)
    long = TorchEngine(
        network, resolve_weights("untrained:3", NETWORK), output="logits", device="cpu", precision="float32", rows=1
    )
    with pytest.raises(CaseError, match="the clip has 26 frames; expected 36 or more") as caught:
        long.features_of_frames(regions(1, 26))
    assert caught.value.problem.code is Code.CLIP_INVALID


def test_frames_that_are_none_are_a_problem_of_their_case(engine):
    for wrong in (np.zeros((0, 128, 128), np.uint8), np.zeros((6, 128, 128)), np.zeros((6, 64, 128), np.uint8)):
        with pytest.raises(CaseError, match="clip-invalid"):
            engine.features_of_frames([wrong])


def test_nan_in_a_clip_is_seen_in_its_features_and_in_no_others(engine):
    clips = np.stack([ClipRule().make(region) for region in regions(3, 6)])
    expected = engine.features(clips)
    clips[1, 2, 3, 100, 100] = np.nan
    values = engine.features(clips)
    np.testing.assert_array_equal(values[::2], expected[::2])
    with pytest.raises(CaseError, match="deep features that are not finite: 400 of 400"):
        check_features(values[1])


def test_a_gpu_task_holds_cases_whose_clips_share_a_batch():
    gpu = section(device="gpu")
    assert [frames_together(gpu, slices) for slices in (1, 5, 6, 8, 9, 26)] == [8, 28, 8, 8, 12, 28]
    assert frames_together(section(), 26) == 26


def test_a_gpu_task_holds_several_batches_to_read_ahead():
    assert cases_per_task(section(batch_size=8)) == 8
    assert cases_per_task(section(batch_size=8, device="gpu")) == 32


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A weight file, here safetensors itself, and the command's conversion of it."""
    folder = tmp_path_factory.mktemp("weights")
    values = resolve_weights("untrained:5", NETWORK).values
    (folder / "in.safetensors").write_bytes(write_safetensors(values, {}))
    main(["weights", "convert", str(folder / "in.safetensors"), str(folder / "out.safetensors")])
    return folder


def test_converted_weights_are_the_same_and_name_their_source(converted, capsys):
    source, target = (
        resolve_weights(f"file:{converted / name}", NETWORK) for name in ("in.safetensors", "out.safetensors")
    )
    assert target.source_sha256 == source.sha256 != target.sha256
    for name, value in source.values.items():
        np.testing.assert_array_equal(target.values[name], value)
    provenance = describe_engine(section(weights=target.spec)).provenance
    assert provenance["weights_sha256"] == target.sha256
    assert provenance["weights_source_sha256"] == source.sha256
    made = convert_weights(converted / "in.safetensors", converted / "again.safetensors", NETWORK)
    assert made.sha256 == target.sha256


@pytest.mark.engines
def test_params_file_is_converted_without_a_change(gluon, tmp_path, capsys):
    import mxnet as mx

    values = resolve_weights("untrained:5", NETWORK).values
    mx.nd.save(str(tmp_path / "net.params"), {k: mx.nd.from_numpy(v, zero_copy=False) for k, v in values.items()})
    main(["weights", "convert", str(tmp_path / "net.params"), str(tmp_path / "net.safetensors")])
    made = resolve_weights(f"file:{tmp_path / 'net.safetensors'}", NETWORK)
    assert capsys.readouterr().out == (
        f"{made.source_sha256}  {tmp_path / 'net.params'}\n{made.sha256}  {tmp_path / 'net.safetensors'}\n"
    )
    assert made.source_sha256 == resolve_weights(f"file:{tmp_path / 'net.params'}", NETWORK).sha256
    for name, value in values.items():
        np.testing.assert_array_equal(made.values[name], value)


def test_converted_file_is_what_the_safetensors_library_reads_and_writes(converted):
    library = pytest.importorskip("safetensors.numpy")
    content = (converted / "out.safetensors").read_bytes()
    theirs, (ours, _) = library.load(content), parse_safetensors(content)
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
    back, metadata = parse_safetensors(library.save(theirs, {"a": "b"}))
    assert metadata == {"a": "b"}
    assert all((back[name] == theirs[name]).all() for name in theirs)


def test_weights_of_another_hash_are_refused(converted):
    spec = f"file:{converted / 'in.safetensors'}"
    right = resolve_weights(spec, NETWORK).sha256
    assert resolve_weights(spec, NETWORK, sha256=right.upper()).sha256 == right
    with pytest.raises(WeightsError, match=f"have the sha256 {right}, expected {'0' * 64}"):
        describe_engine(section(weights=spec, weights_sha256="0" * 64))


def test_weights_that_lack_a_parameter_or_have_another_shape_are_refused(tmp_path):
    values = dict(resolve_weights("untrained:5", NETWORK).values)
    del values["features.3.1.beta"]
    values["output.weight"] = np.zeros((51, 1024), np.float32)
    (tmp_path / "bad.safetensors").write_bytes(write_safetensors(values, {}))
    with pytest.raises(WeightsError, match=r"lacks features\.3\.1\.beta.*output\.weight \(51, 1024\), expected"):
        load_engine(section(weights=f"file:{tmp_path / 'bad.safetensors'}"))


def header(text):
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut short"),
        (b"<!DOCTYPE html>" * 9, "does not begin as"),
        (header("not json"), "header is not that"),
        (header("[]"), "header is not that"),
        (header(json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}})) + bytes(4), "type F16"),
        (header(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})) + bytes(4), "cut short"),
    ],
)
def test_safetensors_of_another_kind_or_cut_short_are_refused(tmp_path, content, reason):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"is not a \.safetensors file of i3d.*{reason}"):
        resolve_weights(f"file:{tmp_path / 'bad.safetensors'}", NETWORK)


def test_a_device_that_computes_something_else_in_its_precision_is_refused(engine):
    """A device that is wrong is played by an engine with other weights than it is held to."""
    own, other = (resolve_weights(f"untrained:{seed}", NETWORK) for seed in (3, 2))
    expect_precision(engine, own, "logits", "float32")
    with pytest.raises(
        ClusterError, match=r"'float32' on deep\.device 'cpu' gives a test clip .*expected at most 0\.0001"
    ):
        expect_precision(engine, other, "logits", "float32")
