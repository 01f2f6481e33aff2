"""What the service is measured against: the same work in other frameworks, and floors below it.

Each peer is one small file, written as the documentation of its framework has it and run as its
users run it in production:

    python -m bench.peers.NAME --port N [--store STORE] [--processes N]

It prints ``listening on port N`` when it accepts connections, and logs each request on standard
error. Three floors do less: ``bare_tornado`` answers a constant; ``asyncpg_alone`` and
``sqlite_alone`` insert entries without any HTTP. No peer imports more of the service than its JSON
Schema, so that the memory of each is its own.
"""
