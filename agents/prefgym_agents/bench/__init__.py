"""The benchmark of preference models: tasks × raters × models × seeds, scored alike.

suite     what is run, as plain data
own       a user's own model or rater, by ``module:name``
data      segments of a fixed behaviour, and what a rater says of them
fitting   a model by name, fitted
scores    accuracy, calibration, strength, groups, exploitability
policies  the policy that a fitted model leads to, and what it is worth
cells     one cell, from its name to its row
running   all of them: one after the other, in processes, or on a Ray cluster
report    Parquet, table, heat map
"""
