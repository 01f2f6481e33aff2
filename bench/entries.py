"""Entries of three sizes, all of them valid, the same from run to run."""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

Entry = dict[str, Any]

_FIRST_NAMES: Final = ('Ada', 'Émile', 'Jürgen', 'Namo', 'Raga', 'Sōseki', 'Zoë')
_CITIES: Final = ('London', 'New Delhi', 'Zürich', 'São Paulo', '東京')


def small(chance: random.Random) -> Entry:
    """One of some 200 bytes: a name, a phone and two emails."""
    return {'name': _name(chance), 'phoneNumbers': [_phone(chance)],
            'emails': [_email(chance), _email(chance)]}


def usual(chance: random.Random) -> Entry:
    """One of some 900 bytes: two addresses, and two of all others."""
    return _entry(chance, addresses=2, others=2)


def large(chance: random.Random) -> Entry:
    """One of some 30 kilobytes: a hundred addresses, and forty of all others."""
    return _entry(chance, addresses=100, others=40)


SIZES: Final[Mapping[str, Callable[[random.Random], Entry]]] = {
    'small': small, 'usual': usual, 'large': large}


def encoded(size: str, seed: int = 0) -> bytes:
    """One as the body of a request; the same size and seed give the same bytes."""
    return orjson.dumps(SIZES[size](random.Random(seed)))


def _entry(chance: random.Random, addresses: int, others: int) -> Entry:
    return {
        'name': _name(chance),
        'addresses': [_address(chance) for _ in range(addresses)],
        'phoneNumbers': [_phone(chance) for _ in range(others)],
        'faxNumbers': [_phone(chance) for _ in range(others)],
        'emails': [_email(chance) for _ in range(others)],
    }


def _name(chance: random.Random) -> str:
    return f'{chance.choice(_FIRST_NAMES)} {chance.randrange(10**6):06}'


def _address(chance: random.Random) -> Entry:
    return {
        'kind': chance.choice(('home', 'work')),
        'buildingName': f'House {chance.randrange(10_000):04}',
        'unitNumber': f'{chance.randrange(1000):03}B',
        'streetNumber': chance.randrange(100, 1000),
        'streetName': f'Street {chance.randrange(10_000):04}',
        'locality': f'Quarter {chance.randrange(100):02}',
        'city': chance.choice(_CITIES),
        'state': f'State {chance.randrange(100):02}',
        'pincode': f'{chance.randrange(10**6):06}',
        'country': 'Country',
    }


def _phone(chance: random.Random) -> Entry:
    return {'kind': 'work', 'countryCode': '+44', 'areaCode': '020',
            'number': chance.randrange(10**7, 10**8)}


def _email(chance: random.Random) -> Entry:
    return {'kind': 'home', 'value': f'someone.{chance.randrange(10**6):06}@example.org'}
