"""
How the tables of `SQLMemory` came to be, step by step: one file in `versions/` per step, run by alembic.

A step is never edited once it has been released; a change of the tables is a new one. `upgrade` is given its
operations as an argument, because alembic's global `op` belongs to one migration at a time.
"""
