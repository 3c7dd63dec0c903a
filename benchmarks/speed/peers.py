"""Peers that prefgym is measured against, each in a virtual environment of its own.

    python -m benchmarks.speed.peers        # installs all of them under benchmarks/.peers

A peer never enters prefgym's own environment: imitation 1.0.1 holds its users on Gymnasium 0.29.
A peer gets the torch that runs prefgym, so that a ratio compares designs and not builds.
"""

import subprocess
import sys
import venv
from pathlib import Path

import torch

PEERS = Path(__file__).resolve().parents[1] / ".peers"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "imitation": (
        "imitation==1.0.1",
        "stable-baselines3==2.2.1",
        "gymnasium==0.29.1",
        "setuptools<81",  # sacred, which imitation needs, still imports pkg_resources
    ),
    "trl": ("trl==1.16.0", "transformers==5.23.0"),
}


def peer_python(peer: str) -> Path:
    """The interpreter of a peer's environment, made and filled on first use.

    Args:
        peer: a key of `REQUIREMENTS`.

    Raises:
        RuntimeError: pip could not install the peer; the message ends with what pip said.
    """
    home = PEERS / peer
    scripts, suffix = ("Scripts", ".exe") if sys.platform == "win32" else ("bin", "")
    python = home / scripts / f"python{suffix}"
    wanted = "\n".join((*REQUIREMENTS[peer], f"torch=={torch.__version__.split('+')[0]}"))
    stamp = home / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {peer} into {home.relative_to(PEERS.parents[1])} ...", flush=True)
    venv.create(home, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", *wanted.split("\n")]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip could not install {peer}: {done.stderr.strip()[-500:]}")
    stamp.write_text(wanted)
    return python


def main() -> None:
    """Install every peer."""
    for peer in REQUIREMENTS:
        print(f"{peer}: {peer_python(peer).relative_to(PEERS.parents[1])}")


if __name__ == "__main__":
    main()
