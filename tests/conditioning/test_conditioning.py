"""The network would be told another class than the example's, or samples would be of other classes than were asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcurr.conditioning import CONDITIONINGS, Class, Field, Nothing, Text

EXAMPLES = {"image": np.zeros((4, 8, 8, 1), np.uint8), "label": np.array([3, 0, 9, 3])}


def test_the_names() -> None:
    assert {"none": Nothing, "class": Class, "text": Text} == CONDITIONINGS


################################################################## class


def test_what_of_an_example_the_network_is_told() -> None:
    condition = Class(num_classes=10).of(EXAMPLES)
    assert list(condition) == ["label"] and condition["label"].dtype == np.int32
    np.testing.assert_array_equal(condition["label"], [3, 0, 9, 3])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_spec_is_of_the_arrays_that_of_gives(dropout: float) -> None:
    """The label "no class" occurs where it is dropped."""
    conditioning = Class(num_classes=10, dropout=dropout)
    (field,) = conditioning.spec().values()
    assert field == Field((), jnp.int32, num_classes=10, droppable=dropout > 0)
    made, told = field.zeros(4), conditioning.of(EXAMPLES)["label"]
    assert (made.shape, made.dtype) == (told.shape, told.dtype)
    np.testing.assert_array_equal(made, 0)


def test_drop_replaces_only_what_is_dropped() -> None:
    """By K; the other arrays of the condition stay, and so does what was given. It runs inside the compiled step."""
    conditioning, extra = Class(num_classes=10), jnp.ones((4, 9))
    condition = {"label": jnp.asarray([3, 0, 9, 3], jnp.int32), "augment": extra}
    dropped = jax.jit(conditioning.drop)(condition, jnp.asarray([True, False, True, False]))
    np.testing.assert_array_equal(dropped["label"], [10, 0, 10, 3])
    np.testing.assert_array_equal(dropped["augment"], extra)
    assert dropped["label"].dtype == jnp.int32
    np.testing.assert_array_equal(condition["label"], [3, 0, 9, 3])


def test_null_says_no_class_of_each() -> None:
    null = Class(num_classes=10).null({"label": jnp.asarray([3, 0, 9], jnp.int32)})
    np.testing.assert_array_equal(null["label"], [10, 10, 10])
    np.testing.assert_array_equal(Class(num_classes=10).null(Class(num_classes=10).chosen(3))["label"], [10, 10, 10])


@pytest.mark.parametrize(
    ("number", "wanted", "expected"),
    [
        (4, None, [0, 1, 2, 3]),  # fewer samples than classes
        (10, None, list(range(10))),
        (23, None, [*range(10), *range(10), 0, 1, 2]),
        (5, [7, 2], [7, 2, 7, 2, 7]),
        (2, [7, 2, 9], [7, 2]),
        (3, [0], [0, 0, 0]),
        (3, range(8, 10), [8, 9, 8]),
    ],
)
def test_chosen_in_turn(number: int, wanted: list[int] | None, expected: list[int]) -> None:
    label = Class(num_classes=10).chosen(number, wanted)["label"]
    assert isinstance(label, np.ndarray) and label.dtype == np.int32
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("wanted", [[10], [-1], [3, 11], []])
def test_classes_that_cannot_be_had(wanted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"classes \[.*\]: give some of 0\.\.9"):
        Class(num_classes=10).chosen(4, wanted)


def test_captions_and_columns() -> None:
    """A word for each sample, and a column for each class while they fit."""
    conditioning = Class(num_classes=10)
    assert conditioning.captions(3, [7, 2]) == ["7", "2", "7"]
    assert conditioning.columns == 10 and Class(num_classes=20).columns == 20
    assert Class(num_classes=1000).columns == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 10, "dropout": 1.0}, r"dropout = 1\.0: must be a number in \[0, 1\)"),
        ({"num_classes": 10, "dropout": -0.1}, r"dropout = -0\.1"),
        ({"num_classes": 0}, "the data set has no classes; choose none"),
        ({}, "the data set has no classes; choose none"),
    ],
)
def test_rejects(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Class(**settings)


################################################################## nothing


def test_nothing() -> None:
    """Also of a data set with classes: it is told of none."""
    for conditioning in (Nothing(), Nothing(num_classes=10)):
        assert conditioning.spec() == conditioning.of(EXAMPLES) == conditioning.chosen(4) == {}
        assert conditioning.drop({}, jnp.ones(4, bool)) == conditioning.null({}) == {}
        assert conditioning.dropout == 0.0 and conditioning.columns == 0 and conditioning.captions(4) == []


def test_nothing_leaves_labels_of_augmentations() -> None:
    condition = {"augment": jnp.ones((4, 9))}
    assert Nothing().drop(condition, jnp.ones(4, bool)) is condition


def test_no_class_can_be_wanted_of_an_unconditional_network() -> None:
    with pytest.raises(ValueError, match=r"classes \[3\]: the network is unconditional"):
        Nothing(num_classes=10).chosen(4, [3])
