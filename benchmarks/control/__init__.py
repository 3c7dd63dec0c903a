"""Learning curves on MuJoCo."""
