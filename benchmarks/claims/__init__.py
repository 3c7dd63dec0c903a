"""What published systems claim, one file per system, each run with its control."""
