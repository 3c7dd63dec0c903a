"""Models of preferences: encoder × head, as an ensemble in one batched computation.

``reward_models`` has the model that most want (``reward_model(...)``), ``language`` the one that
reads text, ``presets`` the published ones by name, ``fit`` the loop that fits any model to
comparisons; ``features``, ``encoders``, ``heads`` and ``populations`` are the parts, and
``ensembles`` is what all models share.
"""
