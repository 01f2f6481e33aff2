"""Classes that the configuration names by their dotted path, so that anyone can add their own."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar('T')


def create_plugin(path: str, settings: Mapping[str, Any] | None, base: type[T]) -> T:
    """An object of the class with that path, made with the settings as keyword arguments.

    :param settings: hyphens in their names become underscores
    :raises ValueError: there is no such class, it is none of that base, or it refuses the settings
    """
    module, _, name = path.rpartition('.')
    if not module or module.startswith('.'):
        raise ValueError(f'{path}: is not the dotted path of a class')
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'{path}: {error}') from error
    if not (inspect.isclass(factory) and issubclass(factory, base)):
        raise ValueError(f'{path}: is not an {base.__name__}')
    keywords = {key.replace('-', '_'): value for key, value in (settings or {}).items()}
    try:
        return factory(**keywords)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from error
