-- One purchase of one basket: the rows that the service writes, and the reads that they need.
\set step :step + 1
\set number :first + :step * :clients + :client_id
\set member (:number * 7919) % :members + 1
BEGIN;
INSERT INTO transaction_key (program_id, source, external_id, type, transaction_id)
VALUES (:program_id, :source, 'sql-' || lpad(:number::text, 12, '0'), 'purchase', uuidv7())
ON CONFLICT DO NOTHING
RETURNING transaction_id \gset
SELECT member.id AS member_id
FROM member_identifier JOIN member ON member.id = member_identifier.member_id
WHERE member_identifier.program_id = :program_id AND kind = 'card' AND value = lpad(:member::text, 12, '0')
  AND status IN ('active', 'earn_only') \gset
SELECT available + held + pending - debt AS balance, last_entry
FROM point_account WHERE member_id = :member_id FOR NO KEY UPDATE \gset
INSERT INTO transaction (id, program_id, type, source, external_id, fingerprint, member_id, enrolled, terms_id, store,
                         occurred_at, recorded_at, currency, total, points, claimable, content, reasons, shares)
VALUES (:transaction_id, :program_id, 'purchase', :source, 'sql-' || lpad(:number::text, 12, '0'), :fingerprint, :member_id, false,
        :terms_id, :store, :occurred_at, now(), :currency, :total, :points, 0, :content, :reasons, :shares);
INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying, lifetime,
                         balance_after, document_id, occurred_at, recorded_at)
VALUES (:member_id, uuidv7(), :last_entry::bigint + 1, 'accrual', :points, :points, 0, 0, 0, :points, :points,
        :balance::bigint + :points::bigint, :transaction_id, :occurred_at, now())
RETURNING id AS entry_id \gset
INSERT INTO lot (member_id, id, entry_id, granted, remaining, held, pending, available_from, expires_at, lapses,
                 cohort_id, currency, funding, allocated, residue, expected, document_id, occurred_at, recorded_at)
VALUES (:member_id, uuidv7(), :entry_id, :points, :points, 0, false, :available_from, :expires_at, false,
        :cohort_id, :currency, :funding, :allocated, :residue, :expected, :transaction_id, :occurred_at, now());
UPDATE point_account
SET available = available + :points::bigint, qualifying = qualifying + :points::bigint,
    lifetime = lifetime + :points::bigint, last_entry = last_entry + 1,
    next_due_at = least(next_due_at, :expires_at::timestamptz)
WHERE member_id = :member_id;
INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, month, funding,
                           estimate_class, allocated, residue, issued, expected, expected_millionths, used,
                           used_as_agent, expired, recorded_at)
VALUES (uuidv7(), :cohort_id, :program_id, :currency, 'accrual', :period, :occurred_at, :month, :funding,
        :estimate_class, :allocated, :residue, :points, :expected::bigint / 1000000, :expected::bigint % 1000000, 0,
        0, 0, now());
INSERT INTO journal_posting (id, program_id, debit, credit, amount, currency, cause, cohort_id, document_id,
                             occurred_at, recorded_at, period)
VALUES (uuidv7(), :program_id, :debit, :credit, :allocated, :currency, 'accrual', :cohort_id, :transaction_id,
        :occurred_at, now(), :period);
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
VALUES (uuidv7(), :program_id, 'transaction.recorded', :member_id,
        jsonb_build_object('transaction_id', :transaction_id::text, 'type', 'purchase', 'points', :points::bigint,
                           'claimable', 0), now());
COMMIT;
