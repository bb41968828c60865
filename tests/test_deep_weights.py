import hashlib
import http.server
import io
import os
import threading
import zipfile

import numpy as np
import pytest

from prognosis_dask.errors import JobError, WeightsError
from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.weights import parse_params, resolve_weights

NETWORK = find_network("i3d_inceptionv1_kinetics400")


@pytest.fixture(scope="module")
def gluon_net(gluon):
    """GluonCV's network as GluonCV makes it."""
    return gluon.model_zoo.get_model(NETWORK.name, pretrained=False, pretrained_base=False)


@pytest.fixture
def write_params(gluon):
    """Write a weight file as MXNet does."""
    import mxnet as mx

    def write(path, values):
        arrays = {name: mx.nd.from_numpy(np.array(value), zero_copy=False) for name, value in values.items()}
        mx.nd.save(str(path), arrays)
        return f"file:{path}"

    return write


@pytest.mark.parametrize("deduplicate", [False, True], ids=["shared ones twice", "shared ones once"])
def test_file_that_gluoncv_saved_is_read_as_mxnet_reads_it(gluon_net, tmp_path, deduplicate):
    import mxnet as mx

    path = tmp_path / "net.params"
    gluon_net.save_parameters(str(path), deduplicate=deduplicate)
    weights = resolve_weights(f"file:{path}", NETWORK)
    assert list(weights.values) == list(NETWORK.parameters)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, value in mx.nd.load(str(path)).items():
        np.testing.assert_array_equal(weights.values[NETWORK.aliases.get(name, name)], value.asnumpy())


def test_weight_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read the weight file .*none\.params: No such file"):
        resolve_weights(f"file:{tmp_path}/none.params", NETWORK)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>" * 9, b"\x12\x01" + bytes(10)])
def test_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "page.params"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"not a \.params file of i3d"):
        resolve_weights(f"file:{path}", NETWORK)


def test_file_cut_short_anywhere_is_refused(write_params, tmp_path):
    write_params(tmp_path / "small.params", {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float32)})
    content = (tmp_path / "small.params").read_bytes()
    assert {name: value.tolist() for name, value in parse_params(content).items()} == {
        "a": [0, 1, 2],
        "b": [[1, 1], [1, 1]],
    }
    for length in range(len(content)):
        with pytest.raises(ValueError, match="it does not begin as" if length < 24 else "it is cut short: at byte"):
            parse_params(content[:length])


def test_file_of_other_numbers_than_float32_is_refused(write_params, tmp_path):
    spec = write_params(tmp_path / "half.params", {"a": np.ones(3, np.float16)})
    with pytest.raises(WeightsError, match=r"type 2, shape \(3,\); expected float32"):
        resolve_weights(spec, NETWORK)


def test_file_of_another_network_says_what_differs(write_params, tmp_path):
    values = dict(resolve_weights("untrained:1", NETWORK).values)
    del values["features.3.1.beta"]
    values["features.3.1.extra"] = np.ones(2, np.float32)
    values["output.weight"] = np.zeros((51, 1024), np.float32)
    values["features.0.1.gamma"] = np.full(64, np.nan, np.float32)
    with pytest.raises(WeightsError) as caught:
        resolve_weights(write_params(tmp_path / "other.params", values), NETWORK)
    text = str(caught.value)
    assert "lacks features.3.1.beta (192,) (1 in all)" in text
    assert "has besides features.3.1.extra (2,)" in text
    assert "output.weight (51, 1024), expected (400, 1024)" in text
    assert "not finite in features.0.1.gamma" in text


def test_untrained_weights_depend_on_the_seed_alone():
    first, again, other = (resolve_weights(f"untrained:{seed}", NETWORK) for seed in (7, 7, 8))
    assert first == again
    assert first.sha256 != other.sha256
    # the same on every machine: a change of these digits changes every synthetic cohort's features
    assert first.sha256 == "75bd1bfe764b267b54c5a2a4bea84b873f75df42af30961e26941a45a0f079a5"


def test_untrained_statistics_of_normalisation_are_not_trivial():
    values = resolve_weights("untrained:7", NETWORK).values
    assert all(0.8 <= value.min() < value.max() <= 1.2 for name, value in values.items() if name.endswith("_var"))
    assert all(value.std() > 0.05 for name, value in values.items() if name.endswith(("_mean", "beta", "gamma")))


@pytest.mark.parametrize("spec", ["", "imagenet", "file:", "untrained", "untrained:x", "kinetics400:1"])
def test_weights_of_another_kind_are_a_mistake_in_the_job(spec):
    with pytest.raises(JobError, match=r"expected 'kinetics400', 'file:PATH\.params' or 'untrained:SEED'"):
        resolve_weights(spec, NETWORK)


def test_pretrained_weights_without_network_say_the_way_on(gluon, tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")
    with pytest.raises(
        WeightsError, match=r"81e0be10.params on a machine with a network.*'file:PATH'.*Connection"
    ) as caught:
        resolve_weights("kinetics400", NETWORK)
    assert str(caught.value).count("(") == str(caught.value).count(")")  # the cause is whole


def test_pretrained_weights_with_another_checksum_are_refused(gluon, tmp_path, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("i3d_inceptionv1_kinetics400-81e0be10.params", b"other weights")

    class Repository(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive.getvalue())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Repository)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("MXNET_HOME", str(tmp_path))
        monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(WeightsError, match="different hash"):
            resolve_weights("kinetics400", NETWORK)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_published_weight_file_is_the_one_gluoncv_names(gluon):
    named = os.environ.get("PROGNOSIS_KINETICS400_PARAMS")
    if not named:
        pytest.skip("set PROGNOSIS_KINETICS400_PARAMS to GluonCV's i3d_inceptionv1_kinetics400-81e0be10.params")
    from gluoncv.model_zoo import model_store
    from gluoncv.utils import check_sha1

    assert check_sha1(named, model_store._model_sha1[NETWORK.name])
    assert list(resolve_weights(f"file:{named}", NETWORK).values) == list(NETWORK.parameters)
