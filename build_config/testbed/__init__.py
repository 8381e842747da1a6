"""What a wheel is tried in: a clean environment, a tiny model, a simulated GPU."""
