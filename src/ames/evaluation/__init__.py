"""Rankings to metrics: protocols, metrics, sweeps, runs."""
