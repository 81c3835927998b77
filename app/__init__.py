"""A loyalty-points service: members, transactions, point ledgers, and the accounting entries they cause.

The folders form a tower; each imports only from below (`make check` holds it):

    main, cli, demo                    assemble
    worker                             the clock's door: jobs
    insight                            reads everything, writes nothing: the proof
    transactions | redemptions         the business acts: earn at the till, spend on a reward
    members                            who they are, how a till recognises them
    programs                           what a programme promises: earning, point value, expiry
    ledger                             points; the only place a balance changes
    accounting                         money; the only place the journal is written
    clients                            who calls us: keys, scopes
    db errors money clock ids ...      the ground: knows no feature
"""

__version__ = "0.1.0"
