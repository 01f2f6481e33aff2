"""Collectors that need packages of their own: each is imported where the configuration names it."""
