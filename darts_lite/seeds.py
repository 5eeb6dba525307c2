"""Independent random streams from one seed: every draw is a function of (seed, what it is for), so nothing has to be saved."""

import hashlib


def derive(seed: int, *keys: int | str) -> int:
    """A 63-bit seed for the stream named by `keys`; equal arguments give equal seeds on every machine."""
    text = "/".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
