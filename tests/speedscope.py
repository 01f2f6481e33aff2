"""Reads speedscope files, and checks that they are what speedscope takes.

Source of the schema: https://www.speedscope.app/file-format-schema.json, as far as it is about
profiles of samples.
"""

import json
from pathlib import Path
from typing import Any, Final

import jsonschema

_NUMBERS: Final = {'type': 'array', 'items': {'type': 'number'}}

_SCHEMA: Final[dict[str, Any]] = {
    'type': 'object',
    'required': ['$schema', 'shared', 'profiles'],
    'additionalProperties': False,
    'properties': {
        '$schema': {'const': 'https://www.speedscope.app/file-format-schema.json'},
        'name': {'type': 'string'},
        'exporter': {'type': 'string'},
        'activeProfileIndex': {'type': 'number'},
        'shared': {
            'type': 'object',
            'required': ['frames'],
            'additionalProperties': False,
            'properties': {'frames': {'type': 'array', 'items': {
                'type': 'object',
                'required': ['name'],
                'additionalProperties': False,
                'properties': {
                    'name': {'type': 'string'},
                    'file': {'type': 'string'},
                    'line': {'type': 'number'},
                    'col': {'type': 'number'},
                },
            }}},
        },
        'profiles': {'type': 'array', 'minItems': 1, 'items': {
            'type': 'object',
            'required': [
                'type', 'name', 'unit', 'startValue', 'endValue', 'samples', 'weights'],
            'additionalProperties': False,
            'properties': {
                'type': {'const': 'sampled'},
                'name': {'type': 'string'},
                'unit': {'enum': [
                    'bytes', 'microseconds', 'milliseconds', 'nanoseconds', 'none', 'seconds']},
                'startValue': {'type': 'number'},
                'endValue': {'type': 'number'},
                'samples': {'type': 'array', 'items': _NUMBERS},
                'weights': _NUMBERS,
            },
        }},
    },
}


def read_speedscope(path: Path) -> dict[str, Any]:
    """The document in a file.

    :raises AssertionError: speedscope could not show it
    """
    document: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    jsonschema.validate(document, _SCHEMA)
    frames = len(document['shared']['frames'])
    for profile in document['profiles']:
        assert len(profile['samples']) == len(profile['weights'])
        assert all(0 <= index < frames for stack in profile['samples'] for index in stack)
        assert abs(sum(profile['weights']) - profile['endValue']) < 1e-6
    return document


def frame_names(document: dict[str, Any]) -> list[str]:
    """What the functions in it are called."""
    return [frame['name'] for frame in document['shared']['frames']]


def seconds_in(document: dict[str, Any], name: str) -> float:
    """How long a function and what it called took."""
    index = frame_names(document).index(name)
    profile, = document['profiles']
    samples = zip(profile['samples'], profile['weights'], strict=True)
    return float(sum(spent for stack, spent in samples if index in stack))
