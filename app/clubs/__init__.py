"""Clubs: memberships that a purchase, a promise or a fee brings, for a time or for good.

Owns memberships, what counts for promises, and how fees are earned. `load` answers the memberships of a batch's
members; they follow what is decided (`bring`, `keep`, `count`) and are written with it. `join` sells them and takes
promises, `leave` ends them before their time; `belongings` answers the clubs of members now. `end` and `recognise`
write down what time has done.
"""

from app.clubs.joining import Ended, Ending, Joined, Wanted, join, leave
from app.clubs.queries import Due, earning, ending, over
from app.clubs.rules import Membership
from app.clubs.schemas import BelongingList, BroughtOut, brought_out
from app.clubs.service import Bought, Memberships, belongings, end, load, offers, recognise

__all__ = [
    "BelongingList",
    "Bought",
    "BroughtOut",
    "Due",
    "Ended",
    "Ending",
    "Joined",
    "Membership",
    "Memberships",
    "Wanted",
    "belongings",
    "brought_out",
    "earning",
    "end",
    "ending",
    "join",
    "leave",
    "load",
    "offers",
    "over",
    "recognise",
]
