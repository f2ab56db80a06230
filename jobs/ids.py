"""Ids of jobs: unguessable, and such that the store need not remember every one that is gone.

An id is four texts in a row: the name of the store's generation, the second it was made at, 130 random bits, and a seal
over all that and the tenant, which only who knows the generation's secret can make. So a single prediction leaves no
tombstone behind: its id says by itself that it was there, and when.
"""

import hmac
import secrets
from dataclasses import dataclass

NAME_LENGTH = 6
SECOND_LENGTH = 7  # 35 bits: enough for a thousand years
RANDOM_LENGTH = 26  # characters of base 32 carry 130 bits, 128 of them random
SEAL_LENGTH = 8  # whoever guesses 40 bits turns a 404 into a 410
ID_LENGTH = NAME_LENGTH + SECOND_LENGTH + RANDOM_LENGTH + SEAL_LENGTH
_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
ALPHABET = frozenset(_DIGITS)
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of the store, as its key holds it: a name that ids begin with, and a secret that seals them."""

    value: str

    @classmethod
    def begin(cls) -> "Generation":
        """A new one."""
        return cls(_random()[:NAME_LENGTH] + _random())

    def new_id(self, second: int, tenant: str) -> str:
        """An id that is made at this second (since the epoch, by the store's clock)."""
        sealed = self.value[:NAME_LENGTH] + _digits(second, SECOND_LENGTH) + _random()
        return sealed + self._seal(sealed, tenant)

    def has(self, job_id: str) -> bool:
        """Whether the id claims to be of this generation."""
        return job_id.startswith(self.value[:NAME_LENGTH])

    def made_at(self, job_id: str, tenant: str) -> int | None:
        """The second at which the id was made for the tenant; None when it was not made by us, or for another."""
        sealed, seal = job_id[:-SEAL_LENGTH], job_id[-SEAL_LENGTH:]
        if not self.has(job_id) or not hmac.compare_digest(seal, self._seal(sealed, tenant)):
            return None
        second = 0
        for digit in job_id[NAME_LENGTH : NAME_LENGTH + SECOND_LENGTH]:
            second = second * len(_DIGITS) + _DIGITS.index(digit)
        return second

    def _seal(self, sealed: str, tenant: str) -> str:
        digest = hmac.digest(self.value[NAME_LENGTH:].encode(), f"{sealed}{tenant}".encode(), "sha256")
        return _digits(int.from_bytes(digest[:5]), SEAL_LENGTH)


def looks_like_id(text: str) -> bool:
    """Whether a job could have this id; what comes from outside is checked before it becomes part of a key."""
    return len(text) == ID_LENGTH and ALPHABET.issuperset(text)


def _random() -> str:
    return _digits(secrets.randbits(5 * RANDOM_LENGTH), RANDOM_LENGTH)


def _digits(number: int, length: int) -> str:
    """The last digits of a number in base 32; two at a time, for every id has some forty."""
    pairs = [_PAIRS[number >> shift & 1023] for shift in range((length - 1) // 2 * 10, -1, -10)]
    return "".join(pairs)[-length:]
