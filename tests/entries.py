"""The places of an entry, and entries with something wrong in one of them."""

import copy
import functools
import operator
from collections.abc import Iterator
from typing import Any, Final

Place = tuple[str | int, ...]

ADDRESS: Final[Place] = ('addresses', 0)
PHONE: Final[Place] = ('phoneNumbers', 0)
FAX: Final[Place] = ('faxNumbers', 0)
EMAIL: Final[Place] = ('emails', 0)

ARRAYS: Final[list[Place]] = [('addresses',), ('phoneNumbers',), ('faxNumbers',), ('emails',)]
OBJECTS: Final[list[Place]] = [(), ADDRESS, PHONE, FAX, EMAIL]
KINDS: Final[list[Place]] = [(*item, 'kind') for item in (ADDRESS, PHONE, FAX, EMAIL)]
TEXTS: Final[list[Place]] = [
    ('name',),
    *((*ADDRESS, name)
      for name in ('buildingName', 'streetName', 'locality', 'city', 'state', 'country')),
]
EMAIL_ADDRESS: Final[Place] = (*EMAIL, 'value')
NUMBERS: Final[list[Place]] = [
    *((*ADDRESS, name) for name in ('unitNumber', 'streetNumber', 'pincode')),
    *((*phone, name) for phone in (PHONE, FAX) for name in ('countryCode', 'areaCode', 'number')),
]
REQUIRED: Final[list[Place]] = [
    ('name',),
    *((*ADDRESS, name) for name in ('kind', 'streetName', 'pincode', 'country')),
    *((*phone, name) for phone in (PHONE, FAX) for name in ('kind', 'countryCode', 'number')),
    *((*EMAIL, name) for name in ('kind', 'value')),
]
LONGEST_EMAIL: Final = 'a' * 250 + '@b.c'


def full_entry() -> dict[str, Any]:
    """A valid entry in which every property of the schema is used."""
    phone = {'kind': 'work', 'countryCode': 44, 'areaCode': '020', 'number': 79460000}
    return {
        'name': 'Ada Lovelace',
        'addresses': [{
            'kind': 'home',
            'buildingName': 'St James House',
            'unitNumber': '12B',
            'streetNumber': 12,
            'streetName': 'St James Square',
            'locality': "St James's",
            'city': 'London',
            'state': 'England',
            'pincode': 'SW1Y 4JH',
            'country': 'United Kingdom',
        }],
        'phoneNumbers': [phone],
        'faxNumbers': [{**phone, 'kind': 'home'}],
        'emails': [{'kind': 'work', 'value': 'ada@example.org'}],
    }


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Every place in a value, itself first."""
    yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*place, index))


def at(value: Any, place: Place) -> Any:
    """What a value holds in a place."""
    return functools.reduce(operator.getitem, place, value)


def replaced(value: Any, place: Place, new: object) -> Any:
    """A copy of a value with something else, or something new, in one place."""
    if not place:
        return new
    changed = copy.deepcopy(value)
    at(changed, place[:-1])[place[-1]] = new
    return changed


def without(value: Any, place: Place) -> Any:
    """A copy of a value without one place."""
    changed = copy.deepcopy(value)
    del at(changed, place[:-1])[place[-1]]
    return changed
