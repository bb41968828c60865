"""`prognosis weights check`: a known input and its values tell the right weights from others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prognosis_dask.cli.main import EXIT_ERROR, main
from prognosis_dask.config.job import DeepSection
from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.engine import load_engine
from prognosis_dask.networks.weights import resolve_weights, write_safetensors
from tests.onnx_file import write_mean_network

I3D = find_network("i3d_inceptionv1_kinetics400")


def test_the_studys_video_and_the_logits_of_one_file_tell_it_from_another(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import imageio.v3 as iio

    video = shared_data / "lung1_tables" / "LUNG1-002.mp4"
    for seed in (1, 2):
        values = resolve_weights(f"untrained:{seed}", I3D).values
        (tmp_path / f"{seed}.safetensors").write_bytes(write_safetensors(values, {}))
    frames = np.ascontiguousarray(iio.imread(video, plugin="pyav")[::25, :, :, 0])
    logits = load_engine(DeepSection(weights="untrained:1")).features(ClipRule().make(frames)[None])[0]
    np.savetxt(tmp_path / "logits.txt", logits)
    example = ["--example", str(video), str(tmp_path / "logits.txt"), "--hold", "25"]

    main(["weights", "check", I3D.name, str(tmp_path / "1.safetensors"), *example])
    said = capsys.readouterr().out
    assert "400 values: correlation 1.00000" in said
    assert said.endswith("The weights are right\n")

    with pytest.raises(SystemExit) as stopped:
        main(["weights", "check", I3D.name, str(tmp_path / "2.safetensors"), *example])
    assert stopped.value.code == EXIT_ERROR
    assert capsys.readouterr().out.endswith("The weights are not the ones that were expected\n")

    published = ["--example", str(video), str(video.with_suffix(".txt")), "--hold", "25"]
    with pytest.raises(SystemExit):
        main(["weights", "check", I3D.name, str(tmp_path / "1.safetensors"), *published])


def test_a_cube_networks_file_is_checked_by_a_cube(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    pytest.importorskip("onnxruntime")
    write_mean_network(tmp_path / "net.onnx", (1, 2, 8, 10, 12))
    (tmp_path / "net.toml").write_text(
        '[cube]\nvoxels = [8, 10, 12]\nspacing_mm = [1, 1, 1]\nintensity = "keep"\noutside = 0\nmask = "channel"\n'
    )
    cube = (
        np.random.default_rng(0).random((2, 8, 10, 12), np.float32) + np.array([0, 3], np.float32)[:, None, None, None]
    )
    np.save(tmp_path / "cube.npy", cube)
    np.savetxt(tmp_path / "values.txt", cube.mean(axis=(1, 2, 3)))
    arguments = ["weights", "check", "file", tmp_path / "net.onnx", "--example", tmp_path / "cube.npy"]
    main([str(argument) for argument in (*arguments, tmp_path / "values.txt")])
    assert capsys.readouterr().out.endswith("The weights are right\n")
    np.savetxt(tmp_path / "values.txt", [1.0, 2.0, 3.0])
    assert "holds 3 values, and file gives 2" in refused(*arguments, tmp_path / "values.txt")
    assert "cannot read the expected values" in refused(*arguments, tmp_path / "none.txt")


def test_a_network_that_is_not_known_is_told_with_the_nearest_name_or_all(refused: Callable[..., str]) -> None:
    told = refused("weights", "check", "i3d_inceptionv1_kinetic400", "a")
    assert "no network 'i3d_inceptionv1_kinetic400', did you mean 'i3d_inceptionv1_kinetics400'?" in told
    told = refused("weights", "convert", "a", "b", "--network", "x")
    assert "no network 'x', expected one of 'i3d_inceptionv1_kinetics400', 'i3d_resnet50" in told
    assert "fmcib" not in told, "which is not converted"
    assert "did you mean 'fmcib'?" in refused("weights", "check", "fmcbi", "a")


def test_a_network_of_its_own_file_is_not_converted_and_told_how_it_is_named(refused: Callable[..., str]) -> None:
    told = refused("weights", "convert", "a", "b", "--network", "fmcib")
    assert "'fmcib' is read from its own TorchScript or ONNX file, which is used as it is: name it as " in told
    assert "deep.weights = 'file:PATH'" in told
