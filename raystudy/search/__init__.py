"""What to try next and what to stop early: Optuna policy, without Ray."""
