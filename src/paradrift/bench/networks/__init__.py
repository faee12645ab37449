"""Small networks trained on the spot: their data, their layers and their recipes, one network a file.

Nothing is downloaded and nothing but the recipe is kept in the repository. A network is trained when it is first asked
for, on one thread with fixed seeds, in about a minute, and kept in the user's cache under a name that says how it was
made; see :mod:`paradrift.bench.networks.kept`.
"""
