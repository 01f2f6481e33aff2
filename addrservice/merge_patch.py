"""JSON Merge Patch (RFC 7396): a description of changes that looks like what it changes."""

from typing import Any

from addrservice.errors import InvalidEntryError, Violation


def merge_patch(target: Any, patch: Any) -> Any:
    """What a JSON value becomes by a patch; neither is changed.

    Members of the patch replace or, where they are null, remove those of the value; anything but
    an object, a list too, replaces it as a whole.

    :raises InvalidEntryError: the patch is nested deeper than any entry could be
    """
    try:
        return _merge(target, patch)
    except RecursionError:
        raise InvalidEntryError([Violation('', 'is nested too deeply')]) from None


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
