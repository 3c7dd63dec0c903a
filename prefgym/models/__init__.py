"""Models of preferences: encoder × head, as an ensemble in one batched computation.

``reward_models`` has the model that most want (``reward_model(...)``), ``fit`` the loop that fits
any model to comparisons, ``features``, ``encoders`` and ``heads`` the parts.
"""
