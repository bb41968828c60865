"""Train the grade network: the same curve for the same seed, wherever it runs. The file of a trained one.

All random numbers (initial values, held-back patients, order, augmentation, dropout) are drawn here with NumPy; an
engine only computes. So a training does not depend on an engine's random generator, which a whole process shares.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from prognosis_dask.arrays import BoolArray, Float32Array, IntArray
from prognosis_dask.config.job import GradeSection
from prognosis_dask.errors import CaseError, MissingExtraError, StatisticsError, WeightsError, count
from prognosis_dask.networks.grade_network import DROPPED, WIDTHS, GradeNetwork, Hidden, Values, feature_names
from prognosis_dask.networks.weights import parse_safetensors, write_safetensors
from prognosis_dask.objects.files import read_bytes

#: Increased whenever the features of the same training change.
VERSION = 2
_LIBRARIES = {"torch": "torch", "gluon": "mxnet"}
#: One training at a time per process: engines have settings per process, and workers provide the parallelism.
_LOCK = threading.Lock()

#: Largest rotation of a volume in the axial plane, in degrees.
ROTATION = 10.0
#: Largest relative change of contrast, and largest shift in standard deviations of the volume.
CONTRAST = 0.1
SHIFT = 0.1


class GradeTrainer(Protocol):
    """A grade network on an engine, with Adam's state. It draws no random numbers, and uses one thread on a CPU."""

    def step(self, volumes: Float32Array, labels: Float32Array, weights: Float32Array, kept: Hidden) -> float:
        """One step of Adam on the batch's weighted mean binary cross-entropy; returns the loss before the step."""
        ...

    def run(self, volumes: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Activations of the two hidden layers (n, 512) and (n, 32), and the logits (n), without dropout."""
        ...

    def values(self) -> Values:
        """The current parameters."""
        ...


@dataclass(frozen=True)
class Epoch:
    """Mean loss of an epoch's batches, and the loss of the held-back cases after it (NaN if there are none)."""

    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    network
        The trained network's description.
    values
        Its parameters at the epoch with the lowest loss on the held-back cases.
    scale
        Mean and standard deviation of each deep feature over the training cases, shape (2, 544): units of networks that
        stopped at different epochs differ in size, and are comparable on this scale only.
    curve
        Every epoch's losses.
    epoch
        The epoch, from 1, that the parameters are of.
    origin
        Digest of its training input; "" if not given.
    """

    network: GradeNetwork
    values: Values = field(repr=False)
    scale: Float32Array = field(repr=False)
    curve: tuple[Epoch, ...]
    epoch: int
    origin: str = ""

    @property
    def sha256(self) -> str:
        """Digest of the parameters' bytes, in order, and of the features' scale."""
        digest = hashlib.sha256()
        for array in (*self.values.values(), self.scale):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()


def settle_learner(section: GradeSection) -> Literal["gluon", "torch"]:
    """The engine that ``auto`` means here: torch if installed, else gluon.

    Raises
    ------
    MissingExtraError
        If the engine, or for ``auto`` both, are not installed.
    """
    wanted: Sequence[Literal["gluon", "torch"]] = ("torch", "gluon") if section.engine == "auto" else (section.engine,)
    for engine in wanted:
        if importlib.util.find_spec(_LIBRARIES[engine]):
            return engine
    raise MissingExtraError(
        f"grade.engine is {section.engine!r}, which needs {' or '.join(_LIBRARIES[engine] for engine in wanted)}: "
        "not installed here; pip install 'prognosis-dask[torch]' runs everywhere"
    )


def load_learner(network: GradeNetwork, values: Values, section: GradeSection) -> GradeTrainer:
    """Build the network with these parameters on the section's engine and device.

    Raises
    ------
    MissingExtraError, ClusterError
        If the engine is not installed, or the section requests a GPU and there is none.
    """
    if settle_learner(section) == "torch":
        from prognosis_dask.networks.torch_engine import TorchTrainer

        return TorchTrainer(network, values, device=section.device, learning_rate=section.learning_rate)
    from prognosis_dask.networks.gluon import GluonTrainer

    return GluonTrainer(network, values, device=section.device, learning_rate=section.learning_rate)


def train(
    volumes: Float32Array, labels: IntArray, patients: Sequence[str], section: GradeSection
) -> tuple[Trained, Float32Array]:
    """Train the network on these cases alone; equal arguments give equal bits.

    Parameters
    ----------
    volumes
        One for each case, shape (cases, slice, row, column).
    labels
        0 (benign: grade II) or 1 (malignant: grade III) for each case.
    patients
        The patient of each case: a patient's cases are all trained on or all held back.
    section
        The job's ``[grade]``.

    Returns
    -------
    trained
        The network.
    features
        Those of these cases, as :func:`run_network` would give them: their scale needs them anyway.

    Raises
    ------
    StatisticsError
        When a class has no case to train on, or none to hold back, or the parameters left what numbers can hold.
    MissingExtraError, ClusterError
        As :func:`load_learner`.
    """
    seeds = np.random.SeedSequence(section.seed).spawn(3)
    first, split, course = (np.random.default_rng(seed) for seed in seeds)
    held_back = hold_back(labels, patients, section.validation_share if section.patience else 0.0, split)
    at, kept_back = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    weights = class_weights(labels, at, balance=section.balance)
    slices, rows, columns = volumes.shape[1:]
    network = GradeNetwork((slices, rows, columns))
    with _LOCK:
        learner = load_learner(network, network.draw(first), section)
        curve: list[Epoch] = []
        best: tuple[float, int, Values] = (np.inf, 0, {})
        while len(curve) < section.epochs:
            training = _epoch(learner, volumes, labels, weights, at, section, course)
            validation = _loss(learner, volumes[kept_back], labels[kept_back], weights[kept_back])
            curve.append(Epoch(training, validation))
            if not len(kept_back):
                continue
            if validation < best[0]:
                best = (validation, len(curve), learner.values())
            elif len(curve) - best[1] >= section.patience:
                break
        values, epoch = (best[2], best[1]) if best[1] else (learner.values(), len(curve))
        features, _ = _run(load_learner(network, values, section), volumes)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.stack([features.mean(axis=0), features.std(axis=0)])
    _expect_finite((*values.values(), scale), curve, section)
    return Trained(network, values, scale, tuple(curve), epoch), _in_deviations(features, scale)


def run_network(trained: Trained, volumes: Float32Array, section: GradeSection) -> tuple[Float32Array, Float32Array]:
    """Deep features and probability of the positive class, case by case, so that none depends on the others.

    Returns
    -------
    features
        Shape (cases, 544), float32; named by :func:`prognosis_dask.networks.grade_network.feature_names`. Standardised
        by the network's training cases; 0 if a unit was constant for them.
    probability
        Shape (cases,).
    """
    with _LOCK:
        features, logit = _run(load_learner(trained.network, trained.values, section), volumes)
    return _in_deviations(features, trained.scale), _sigmoid(logit)


def _in_deviations(features: Float32Array, scale: Float32Array) -> Float32Array:
    mean, spread = scale
    return np.where(spread > 0, (features - mean) / np.where(spread > 0, spread, 1), 0).astype(np.float32)


def _expect_finite(arrays: Iterable[Float32Array], curve: Sequence[Epoch], section: GradeSection) -> None:
    """Refuse a diverged training: its features are zero or missing, which models would ignore silently."""
    if not all(np.isfinite(array).all() for array in arrays):
        losses = ", ".join(f"{epoch.training_loss:.3g}" for epoch in curve)
        raise StatisticsError(
            f"the grade network's training ran away (losses {losses}): take a smaller grade.learning_rate than "
            f"{section.learning_rate:g}, and see that the prepared images are normalised"
        )


def _run(learner: GradeTrainer, volumes: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The hidden layers' values (cases, 544), and the logits, case by case."""
    rows = [learner.run(volume[None]) for volume in volumes]
    features = np.concatenate([np.concatenate([first, second], axis=1) for first, second, _ in rows])
    return features, np.concatenate([logit for _, _, logit in rows])


def hold_back(labels: IntArray, patients: Sequence[str], share: float, rng: np.random.Generator) -> BoolArray:
    """Which cases are held back: the share of each class's patients, rounded, at least one; none if it is 0.

    A patient with cases of both classes counts for the class of the first.

    Raises
    ------
    StatisticsError
        When a class has no case to train on, or none to hold back.
    """
    names, first, number = np.unique(list(patients), return_index=True, return_inverse=True)
    chosen = np.zeros(len(names), bool)
    for label in (0, 1):
        members = np.flatnonzero(labels[first] == label)
        held = max(1, round(share * len(members))) if share else 0
        if len(members) <= held:
            other = f", {held} of them to be held back (none with grade.patience = 0)" if share else ""
            raise StatisticsError(
                f"the {('first', 'second')[label]} class has {count(len(members), 'training patient')}{other}: the "
                "network needs more of each class"
            )
        chosen[rng.permutation(members)[:held]] = True
    return np.asarray(chosen[number])


def class_weights(labels: IntArray, at: IntArray, *, balance: bool) -> Float32Array:
    """Weight of each case's loss: 1 on average over the training cases ``at``, with equal totals for both classes."""
    if not balance:
        return np.ones(len(labels), np.float32)
    share = np.bincount(labels[at], minlength=2) / len(at)
    return np.asarray((0.5 / share)[labels], np.float32)


def provenance(section: GradeSection) -> dict[str, str]:
    """What a training depends on besides its cases: settings, engine and version."""
    engine = settle_learner(section)
    library = _LIBRARIES[engine]
    idle = ("enabled", "clinical")
    settings = {key: str(value) for key, value in asdict(section).items() if key not in idle}
    return settings | {"version": str(VERSION), "engine": engine, library: importlib.metadata.version(library)}


def _epoch(
    learner: GradeTrainer,
    volumes: Float32Array,
    labels: IntArray,
    weights: Float32Array,
    at: IntArray,
    section: GradeSection,
    rng: np.random.Generator,
) -> float:
    """Train on every case once, in a new order; returns the mean loss of the batches."""
    order = rng.permutation(at)
    losses = []
    for start in range(0, len(order), section.batch_size):
        rows = order[start : start + section.batch_size]
        batch = np.stack([augment(volumes[row], rng) for row in rows]) if section.augment else volumes[rows]
        losses.append(learner.step(batch, labels[rows].astype(np.float32), weights[rows], _kept(len(rows), rng)))
    return float(np.mean(losses))


def _kept(count: int, rng: np.random.Generator) -> Hidden:
    first, second = (
        (rng.random((count, width)) >= dropped).astype(np.float32) / np.float32(1 - dropped)
        for width, dropped in zip(WIDTHS, DROPPED, strict=True)
    )
    return first, second


def _loss(learner: GradeTrainer, volumes: Float32Array, labels: IntArray, weights: Float32Array) -> float:
    """The weighted mean binary cross-entropy of the cases, without dropout; NaN without cases."""
    if not len(volumes):
        return float("nan")
    z = np.array([learner.run(volume[None])[2][0] for volume in volumes], np.float64)
    with np.errstate(invalid="ignore"):  # comparisons with NaN are false: such an epoch is not kept
        return float(np.mean(weights * (np.logaddexp(0, z) - z * labels)))


def _sigmoid(z: Float32Array) -> Float32Array:
    return np.asarray(np.exp(-np.logaddexp(0, -z.astype(np.float64))), np.float32)


def augment(volume: Float32Array, rng: np.random.Generator) -> Float32Array:
    """One volume (slice, row, column), randomly flipped left to right, rotated, and changed in brightness and contrast.

    Rotation is in the axial plane only, since slices are thicker than pixels are wide. Zeros stay zeros: the outside of
    the brain, and appended slices.
    """
    if rng.random() < 0.5:
        volume = volume[:, :, ::-1]
    volume = rotate(volume, rng.uniform(-ROTATION, ROTATION))
    stretch = np.float32(1 + rng.uniform(-CONTRAST, CONTRAST))
    shift = np.float32(rng.uniform(-SHIFT, SHIFT) * volume.std())
    return np.where(volume == 0, np.float32(0), volume * stretch + shift)


def rotate(volume: Float32Array, degrees: float) -> Float32Array:
    """Rotate every slice about its centre, with linear interpolation and zeros outside."""
    from scipy.ndimage import affine_transform

    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    middle = (np.array(volume.shape) - 1) / 2
    turned = affine_transform(volume, turn, offset=middle - turn @ middle, order=1, output=np.float32)
    return np.asarray(turned, np.float32)


#: Name of the array with :attr:`Trained.scale`; no parameter has this name.
_SCALE = "features.usual"


def trained_bytes(trained: Trained) -> bytes:
    """The file's content: parameters and features' scale; input's shape, curve, epoch and origin in the metadata."""
    metadata = {
        "input_shape": json.dumps(trained.network.input_shape),
        "epoch": str(trained.epoch),
        "origin": trained.origin,
        "curve": json.dumps([[repr(loss) for loss in asdict(epoch).values()] for epoch in trained.curve]),
    }
    return write_safetensors({**trained.values, _SCALE: trained.scale}, metadata)


def read_trained(path: Path | str) -> Trained:
    """The network in a file that holds :func:`trained_bytes`.

    Raises
    ------
    WeightsError
        When the file is missing, of another kind, or lacks this network's parameters.
    """
    try:
        values, metadata = parse_safetensors(read_bytes(str(path)))
        first, second, third = json.loads(metadata["input_shape"])
        network = GradeNetwork((first, second, third))
        curve = tuple(Epoch(*map(float, losses)) for losses in json.loads(metadata["curve"]))
        epoch, origin = int(metadata["epoch"]), metadata.get("origin", "")
    except (OSError, CaseError) as error:
        raise WeightsError(f"cannot read the grade network {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} holds no grade network ({error}); expected a file that a run wrote as networks/network.safetensors"
        ) from error
    found = {name: array.shape for name, array in values.items()}
    expected = {**network.parameters, _SCALE: (2, len(feature_names()))}
    if found != expected:
        wrong = [name for name in expected if found.get(name) != expected[name]]
        raise WeightsError(
            f"{path} does not fit a network on {network.input_shape}: {', '.join(wrong or found)} lack or differ"
        )
    if not all(np.isfinite(array).all() for array in values.values()):
        raise WeightsError(f"{path} contains parameters that are not finite: train the network again")
    return Trained(network, {name: values[name] for name in network.parameters}, values[_SCALE], curve, epoch, origin)
