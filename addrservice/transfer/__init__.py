"""Moves entries out of a store and into one: ``python -m addrservice export`` and ``import``.

What is between them is a file of JSON Lines, which ``lines`` knows. Both of them stream: what they
hold does not grow with the book.
"""

from addrservice.transfer.command import main

__all__ = ['main']
