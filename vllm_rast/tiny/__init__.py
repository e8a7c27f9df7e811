"""A tiny didactic world with shipped models, so that everything runs without a network."""
