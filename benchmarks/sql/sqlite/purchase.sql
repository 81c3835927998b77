-- One purchase of one basket on SQLite: the rows that the service writes, and the reads that they need.
INSERT INTO transaction_key (program_id, source, external_id, type, transaction_id)
VALUES (:program_id, :source, :external_id, 'purchase', :transaction_id)
ON CONFLICT DO NOTHING;
SELECT member.id AS member_id
FROM member_identifier JOIN member ON member.id = member_identifier.member_id
WHERE member_identifier.program_id = :program_id AND kind = 'card' AND value = :card
  AND status IN ('active', 'earn_only') \gset
SELECT available + held + pending - debt AS balance, last_entry FROM point_account WHERE member_id = :member_id \gset
INSERT INTO "transaction" (id, program_id, type, source, external_id, fingerprint, member_id, enrolled, terms_id, store,
                           occurred_at, recorded_at, currency, total, points, claimable, content, reasons, shares)
VALUES (:transaction_id, :program_id, 'purchase', :source, :external_id, :fingerprint, :member_id, false, :terms_id,
        :store, :occurred_at, :now, :currency, :total, :points, 0, :content, :reasons, :shares);
INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying, lifetime,
                         balance_after, document_id, occurred_at, recorded_at)
VALUES (:member_id, :entry_id, :last_entry + 1, 'accrual', :points, :points, 0, 0, 0, :points, :points,
        :balance + :points, :transaction_id, :occurred_at, :now);
INSERT INTO lot (member_id, id, entry_id, granted, remaining, held, pending, available_from, expires_at, lapses,
                 cohort_id, currency, funding, allocated, residue, expected, document_id, occurred_at, recorded_at)
VALUES (:member_id, :lot_id, :entry_id, :points, :points, 0, false, :available_from, :expires_at, false, :cohort_id,
        :currency, :funding, :allocated, :residue, :expected, :transaction_id, :occurred_at, :now);
UPDATE point_account
SET available = available + :points, qualifying = qualifying + :points, lifetime = lifetime + :points,
    last_entry = last_entry + 1, next_due_at = min(coalesce(next_due_at, :expires_at), :expires_at)
WHERE member_id = :member_id;
INSERT INTO journal_posting (id, program_id, debit, credit, amount, currency, cause, cohort_id, document_id,
                             occurred_at, recorded_at, period)
VALUES (:posting_id, :program_id, :debit, :credit, :allocated, :currency, 'accrual', :cohort_id, :transaction_id,
        :occurred_at, :now, :period);
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
VALUES (:event_id, :program_id, 'transaction.recorded', :member_id,
        json_object('transaction_id', :transaction_text, 'type', 'purchase', 'points', :points, 'claimable', 0), :now);
