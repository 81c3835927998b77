-- Everything of one purchase comes back: the rows that the service writes, and the reads that they need.
\set step :step + 1
\set number :first + :step * :clients + :client_id
BEGIN;
INSERT INTO transaction_key (program_id, source, external_id, type, transaction_id)
VALUES (:program_id, :source, 'fill-' || lpad(:number::text, 12, '0'), 'return', uuidv7())
ON CONFLICT DO NOTHING
RETURNING transaction_id \gset
SELECT t.id AS purchase_id, t.member_id, t.terms_id, t.total, t.points, t.currency, t.occurred_at,
       (SELECT jsonb_object_agg(line ->> 'line', line ->> 'quantity')
        FROM jsonb_array_elements(t.content -> 'lines') line) AS lines
FROM transaction_key k JOIN transaction t ON t.id = k.transaction_id
WHERE k.program_id = :program_id AND k.source = :source AND k.external_id = 'fill-' || lpad(:number::text, 12, '0')
  AND k.type = 'purchase' \gset
SELECT debit, credit FROM journal_posting WHERE document_id = :purchase_id AND cause = 'accrual' \gset
SELECT available + held + pending - debt AS balance, last_entry
FROM point_account WHERE member_id = :member_id FOR NO KEY UPDATE \gset
SELECT id AS lot_id, cohort_id, allocated, residue, expected FROM lot
WHERE member_id = :member_id AND document_id = :purchase_id AND remaining = granted AND held = 0 \gset
INSERT INTO transaction (id, program_id, type, source, external_id, fingerprint, member_id, enrolled, terms_id,
                         occurred_at, recorded_at, currency, total, points, claimable, content, reasons, shares,
                         purchase_id, original_id, outcome)
VALUES (:transaction_id, :program_id, 'return', :source, 'fill-' || lpad(:number::text, 12, '0'), :fingerprint,
        :member_id, false, :terms_id, :occurred_at, now(), :currency, :total, - :points::bigint, 0, :content, '[]',
        '[]', :purchase_id, :purchase_id,
        jsonb_build_object(
            'figures', jsonb_build_object('total', :total::bigint, 'consideration', :total::bigint, 'tax', 0,
                                          'net_paid_with_points', 0, 'tendered', 0, 'tendered_points', 0,
                                          'base', :total::bigint, 'visits', 1, 'units', 0),
            'taken_back', :points::bigint, 'expired', 0, 'debt', 0, 'written_off', 0, 'withheld', 0,
            'withheld_amount', 0, 'given_back', 0, 'stay_expired', 0, 'conceded', 0,
            'settled', 0, 'lines', :lines::jsonb, 'amount', 0));
INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying, lifetime,
                         balance_after, document_id, occurred_at, recorded_at)
VALUES (:member_id, uuidv7(), :last_entry::bigint + 1, 'reversal', - :points::bigint, - :points::bigint, 0, 0, 0,
        - :points::bigint, - :points::bigint, :balance::bigint - :points::bigint, :transaction_id, :occurred_at, now())
RETURNING id AS entry_id \gset
UPDATE lot SET remaining = remaining - :points::bigint WHERE member_id = :member_id AND id = :lot_id;
INSERT INTO lot_use (member_id, id, entry_id, lot_id, points, effect)
VALUES (:member_id, uuidv7(), :entry_id, :lot_id, :points, 'returned');
INSERT INTO lot_return (member_id, id, entry_id, lot_id, points, allocated, residue, expected, of_used, of_expired)
VALUES (:member_id, uuidv7(), :entry_id, :lot_id, :points, :allocated, :residue, :expected, 0, 0);
UPDATE point_account
SET available = available - :points::bigint, qualifying = qualifying - :points::bigint,
    lifetime = lifetime - :points::bigint, last_entry = last_entry + 1,
    next_due_at = least((SELECT min(expires_at) FROM lot WHERE member_id = :member_id AND remaining > 0),
                        (SELECT min(ends_at) FROM hold WHERE member_id = :member_id AND status = 'open'))
WHERE member_id = :member_id;
INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, allocated, residue, issued,
                           expected, expected_millionths, used, used_as_agent, expired, recorded_at)
VALUES (uuidv7(), :cohort_id, :program_id, :currency, 'return', :period, :occurred_at, - :allocated::bigint,
        - :residue::bigint, - :points::bigint, floor(- :expected::numeric / 1000000),
        mod(1000000 - mod(:expected::bigint, 1000000), 1000000), 0, 0, 0, now());
INSERT INTO journal_posting (id, program_id, debit, credit, amount, currency, cause, cohort_id, document_id,
                             occurred_at, recorded_at, period)
VALUES (uuidv7(), :program_id, :credit, :debit, :allocated, :currency, 'return', :cohort_id, :transaction_id,
        :occurred_at, now(), :period);
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
VALUES (uuidv7(), :program_id, 'transaction.recorded', :member_id,
        jsonb_build_object('transaction_id', :transaction_id::text, 'type', 'return', 'points', - :points::bigint,
                           'claimable', 0), now());
COMMIT;
