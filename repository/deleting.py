"""Deleting where it may be refused: many machines hold credentials that can add to a store and take nothing away."""

from __future__ import annotations

from model.errors import Refused
from repository.store.base import Store

HINT = "nothing is lost; run it with credentials that may delete, see docs/append-only.md"


def delete(store: Store, name: str, what: str, hint: str = HINT) -> None:
    """Delete an object that `what` has to delete. Raises Refused that says so, with `hint`; Missing, StoreError."""
    try:
        store.delete(name)
    except Refused as error:
        raise refusal_of(error, what, hint) from error


def refusal_of(error: Refused, what: str, hint: str = HINT) -> Refused:
    """The error of a store that refused to delete, told as what it is: these credentials are not meant for `what`."""
    return Refused(
        f"{what} has to delete, which the store refuses these credentials",
        subject=error.subject,
        why=error.why,
        hint=hint,
    )
