"""The wheelhouse: a published wheel, its build record, the statement about it and the signature."""
