"""The means to try a wheel: a clean environment, a synthetic model, a simulated GPU."""
