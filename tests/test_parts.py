"""A name or setting of a config would be taken for another, be ignored, or be refused without saying what there is."""

import dataclasses
from typing import Any, ClassVar

import pytest

from diffcurr import experiment, parts
from diffcurr.conditioning import Class, Nothing
from diffcurr.curriculum.rules import Patience
from diffcurr.errors import UserError
from diffcurr.networks import DiT
from diffcurr.processes import DDPM, EDM, Flow
from diffcurr.processes.density import LogitNormal, Speed
from diffcurr.processes.prediction import Preconditioned, V
from diffcurr.processes.weighting import MinSNR, NetworkError
from diffcurr.sampling.solvers import SOLVERS, Solver

SECTIONS = list(parts.TABLES)
assert experiment  # it fills in the tables


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_name_lists_the_choices(section: str) -> None:
    table = parts.TABLES[section]
    with pytest.raises(UserError) as caught:
        parts.choose(section, "no such thing")
    assert f"= 'no such thing': choose one of {', '.join(table)}; your own parts" in str(caught.value)
    assert str(caught.value).startswith(section) and "\n" not in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_settings_of_every_part_are_its_arguments(section: str) -> None:
    """`name` is the key of the name, so no part has a setting of that name; and each has a default, so none is lost."""
    for name, part in parts.TABLES[section].items():
        settings = parts.settings_of(part)
        assert "name" not in settings and "self" not in settings, name
        assert not set(settings) & {*getattr(part, "DERIVED", ()), "rngs", "shape"}, name
        assert not (hasattr(part, "from_spec") and set(settings) & set(parts.FROM_SPEC)), name


def test_an_unknown_key_suggests_the_closest() -> None:
    with pytest.raises(UserError, match=r"config key 'process\.schedul' is unknown: did you mean 'schedule'\?"):
        parts.build("process", {"name": "ddpm", "schedul": "linear"})
    with pytest.raises(UserError, match=r"config key 'process\.weighting\.gama' is unknown: did you mean 'gamma'\?"):
        parts.build("process", {"name": "ddpm", "weighting": {"name": "min_snr", "gama": 3.0}})
    with pytest.raises(UserError, match=r"'sampling\.solver\.qq' is unknown: there are eta$"):
        parts.build("sampling.solver", {"name": "ddim", "qq": 1})
    with pytest.raises(
        UserError,
        match=r"'process\.weighting\.gamma' is unknown: there are none; process\.weighting\.name = 'min_snr' or",
    ):
        parts.build("process.weighting", {"name": "constant", "gamma": 3.0})


def test_a_key_of_another_part_is_unknown() -> None:
    with pytest.raises(UserError, match=r"config key 'process\.path' is unknown"):
        parts.build("process", {"name": "ddpm", "path": "linear"})


def test_a_derived_key_is_refused() -> None:
    """It follows from other parts, and whoever builds the part passes it."""
    with pytest.raises(UserError, match=r"'conditioning\.num_classes' follows from other settings: remove it"):
        parts.build("conditioning", {"name": "class", "num_classes": 3}, num_classes=10)
    with pytest.raises(UserError, match=r"'curriculum\.seed' follows from other settings: remove it"):
        parts.build("curriculum", {"name": "patience", "seed": 3}, clusters=3, seed=0)
    with pytest.raises(UserError, match=r"'network\.in_channels' follows from other settings: remove it"):
        parts.check("network", DiT, {"in_channels": 3})
    assert parts.build("conditioning", {"name": "class"}, num_classes=10) == Class(num_classes=10)
    assert parts.build("conditioning", {"name": "none"}, num_classes=10) == Nothing(num_classes=10)
    built = parts.build("curriculum", {"name": "patience", "patience": 7}, clusters=3, seed=1)
    assert built == Patience(clusters=3, seed=1, patience=7)


def test_a_value_that_the_part_refuses_says_where_it_stands() -> None:
    with pytest.raises(UserError, match=r"^process\.weighting: gamma = -1\.0: must be a number above 0"):
        parts.build("process", {"name": "ddpm", "weighting": {"name": "min_snr", "gamma": -1.0}})
    with pytest.raises(UserError, match=r"^process: path = 'straight': choose one of"):
        parts.build("process", {"name": "flow", "path": "straight"})


def test_nested_parts_are_built() -> None:
    given = {
        "name": "ddpm",
        "schedule": "cosine",
        "prediction": {"name": "v"},
        "weighting": {"name": "min_snr", "gamma": 3.0},
        "density": {"name": "speed", "tau": 600},
    }
    expected = DDPM(schedule="cosine", prediction=V(), weighting=MinSNR(gamma=3.0), density=Speed(tau=600))
    assert parts.build("process", given) == expected
    assert parts.build("process", {"name": "edm"}) == EDM()  # what is not given is the part's own default


def test_complete_fills_in_defaults() -> None:
    """Also of the parts inside, where the outer part's own default is one of several."""
    assert parts.complete("process", "edm") == {
        "name": "edm",
        "prediction": {"name": "preconditioned", "sigma_data": 0.5},
        "weighting": {"name": "edm"},
        "density": {"name": "uniform"},
        "p_mean": -1.2,
        "p_std": 1.2,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "rho": 7.0,
    }
    given = {
        "name": "flow",
        "density": "logit_normal",  # the name alone
        "weighting": {"name": "p2", "k": 2.0},
        "prediction": {},
    }
    assert parts.complete("process", given) == {
        "name": "flow",
        "path": "linear",
        "density": {"name": "logit_normal", "mean": 0.0, "std": 1.0},
        "weighting": {"name": "p2", "gamma": 1.0, "k": 2.0},
        "prediction": {"name": "velocity"},
    }
    assert given["weighting"] == {"name": "p2", "k": 2.0}  # what was given is not changed


def test_a_setting_of_an_inner_part_is_that_of_the_default_part() -> None:
    completed = parts.complete("process", {"name": "edm", "prediction": {"sigma_data": 0.75}})
    assert completed["prediction"] == {"name": "preconditioned", "sigma_data": 0.75}
    assert parts.build("process", completed) == EDM(prediction=Preconditioned(sigma_data=0.75))


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section in ("process", "process.weighting", "sampling.solver")
        for name in parts.TABLES[section]
    ],
)
def test_a_completed_section_builds_the_part_of_its_defaults(section: str, name: str) -> None:
    """And stays as it is when it is completed again."""
    completed = parts.complete(section, name)
    assert parts.build(section, completed) == parts.TABLES[section][name]()
    assert parts.complete(section, completed) == completed


def test_a_missing_name() -> None:
    with pytest.raises(UserError, match=r"config key 'process\.name' is missing: choose one of ddpm, edm, flow"):
        parts.complete("process", {"schedule": "linear"})


def test_the_section_of_a_part() -> None:
    assert parts.section_of("process.density", LogitNormal(std=2.0)) == {
        "name": "logit_normal",
        "mean": 0.0,
        "std": 2.0,
    }
    assert parts.section_of("process.weighting", NetworkError()) == {"name": "edm"}


def test_a_network_has_the_settings_of_its_constructor() -> None:
    """Its `from_spec` takes any, and works out those that follow from data and conditioning."""
    settings = parts.settings_of(DiT)
    assert settings["patch_size"] == 2 and settings["mlp_ratio"] == 4.0 and settings["remat"] == "none"
    assert not {"shape", "condition", "learn_variance", "dtype", "rngs", "input_size", "num_classes"} & set(settings)


def test_a_section_of_several_parts() -> None:
    """Each by its name, with its settings under it."""
    section = "evaluation.metrics"
    completed = parts.complete(section, {"frechet_distance": {}, "kernel_distance": {}})
    assert list(completed) == ["frechet_distance", "kernel_distance"] and "resamples" in completed["frechet_distance"]
    made = parts.build_several(section, completed)
    assert {name: type(part) for name, part in made.items()} == {
        name: parts.TABLES[section][name] for name in completed
    }
    given: dict[str, Any]
    for given, message in (
        ({"inception": {}}, r"evaluation\.metrics = 'inception': choose one of frechet_distance, "),
        (
            {"frechet_distance": {"resample": 3}},
            r"'evaluation\.metrics\.frechet_distance\.resample' is unknown: did you",
        ),
    ):
        with pytest.raises(UserError, match=message):
            parts.build_several(section, given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guest(Solver):
    """A solver from elsewhere, which jumps to clean data."""

    DERIVED: ClassVar = ("width",)
    strength: float = 1.0
    width: int = 0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError(f"strength = {self.strength}: must be at least 0")

    def __call__(self, key: Any, denoise: Any, levels: Any, x: Any) -> Any:
        return denoise(x, levels.time[0]).x0


def test_a_registered_guest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in the table is enough; it is checked as the others are, and gone when the table is as it was."""
    section = "sampling.solver"
    before = dict(SOLVERS)
    with monkeypatch.context() as patch:
        patch.setitem(SOLVERS, "guest", Guest)
        assert parts.complete(section, "guest") == {"name": "guest", "strength": 1.0}
        assert parts.build(section, {"name": "guest", "strength": 2.0}, width=8) == Guest(strength=2.0, width=8)
        with pytest.raises(UserError, match=r"'sampling\.solver\.strenght' is unknown: did you mean 'strength'"):
            parts.build(section, {"name": "guest", "strenght": 2.0})
        with pytest.raises(UserError, match=r"'sampling\.solver\.width' follows from other settings"):
            parts.build(section, {"name": "guest", "width": 3})
        with pytest.raises(UserError, match=r"sampling\.solver: strength = -1\.0: must be at least 0"):
            parts.build(section, {"name": "guest", "strength": -1.0})
        with pytest.raises(UserError, match="choose one of ddim, ancestral, heun, sde, adaptive, guest"):
            parts.choose(section, "other")
    assert before == SOLVERS
    with pytest.raises(UserError, match=r"sampling\.solver\.name = 'guest'"):
        parts.choose(section, "guest")


def test_a_process_with_a_part_of_its_own_is_the_constructors() -> None:
    completed = parts.complete("process", {"name": "flow", "density": {"name": "logit_normal", "mean": 0.3}})
    assert parts.build("process", completed) == Flow(density=LogitNormal(mean=0.3))
