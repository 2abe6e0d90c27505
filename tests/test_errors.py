from lasem import errors
from lasem.errors import LasemError, nearest


def test_every_error_is_a_lasem_error() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 8
    assert all(issubclass(kind, LasemError) for kind in kinds)


def test_nearest_names_the_closest_or_nothing() -> None:
    assert nearest("cifr-1", ["cifar-1", "stl-1"]) == " Did you mean 'cifar-1'?"
    assert nearest("xyz", ["cifar-1", "stl-1"]) == ""
    assert nearest("anything", []) == ""
