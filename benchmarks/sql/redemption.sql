-- One redemption of a reward, handed over at once: the rows that the service writes, and the reads that they need.
\set step :step + 1
\set number :first + :step * :clients + :client_id
\set member (:number * 7919) % :members + 1
BEGIN;
INSERT INTO idempotency_key (client_id, key, fingerprint, status, media_type, body, created_at)
VALUES (:client, 'sql-' || :number::text, :fingerprint, 201, 'application/json', :body, now())
ON CONFLICT DO NOTHING
RETURNING key \gset
SELECT member.id AS member_id
FROM member_identifier JOIN member ON member.id = member_identifier.member_id
WHERE member_identifier.program_id = :program_id AND kind = 'card' AND value = lpad(:member::text, 12, '0')
  AND status IN ('active', 'spend_only') \gset
SELECT available + held + pending - debt AS balance, last_entry
FROM point_account WHERE member_id = :member_id AND available >= :points::bigint FOR NO KEY UPDATE \gset
SELECT id AS reward_id FROM reward WHERE program_id = :program_id AND code = :reward AND retired_at IS NULL \gset
SELECT id AS lot_id, cohort_id, currency FROM lot
WHERE member_id = :member_id AND remaining - held >= :points::bigint AND NOT pending AND expires_at > now()
ORDER BY expires_at, occurred_at, id LIMIT 1 \gset
INSERT INTO redemption (id, program_id, member_id, reward_id, quantity, points, counted, supplier, cost, currency,
                        status, ordered_at, ended_at)
VALUES (uuidv7(), :program_id, :member_id, :reward_id, 1, :points, false, 'own', :cost, :currency, 'fulfilled', now(),
        now())
RETURNING id AS redemption_id \gset
INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying, lifetime,
                         balance_after, document_id, occurred_at, recorded_at)
VALUES (:member_id, uuidv7(), :last_entry::bigint + 1, 'redemption', - :points::bigint, - :points::bigint, 0, 0, 0, 0,
        0, :balance::bigint - :points::bigint, :redemption_id, now(), now())
RETURNING id AS entry_id \gset
UPDATE lot SET remaining = remaining - :points::bigint WHERE member_id = :member_id AND id = :lot_id;
INSERT INTO lot_use (member_id, id, entry_id, lot_id, points, effect)
VALUES (:member_id, uuidv7(), :entry_id, :lot_id, :points, 'used');
UPDATE point_account
SET available = available - :points::bigint, last_entry = last_entry + 1,
    next_due_at = least((SELECT min(expires_at) FROM lot WHERE member_id = :member_id AND remaining > 0),
                        (SELECT min(ends_at) FROM hold WHERE member_id = :member_id AND status = 'open'))
WHERE member_id = :member_id;
INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, allocated, residue, issued,
                           expected, expected_millionths, used, used_as_agent, expired, recorded_at)
VALUES (uuidv7(), :cohort_id, :program_id, :currency, 'redemption', :period, now(), 0, 0, 0, 0, 0, :points, 0, 0,
        now());
INSERT INTO journal_posting (id, program_id, debit, credit, amount, currency, cause, document_id, occurred_at,
                             recorded_at, period)
VALUES (uuidv7(), :program_id, :debit, :credit, :cost, :currency, 'fulfilment', :redemption_id, now(), now(), :period);
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
SELECT uuidv7(), :program_id, topic, :member_id,
       jsonb_build_object('redemption_id', :redemption_id::text, 'reward_id', :reward_id::text, 'quantity', 1,
                          'points', :points::bigint), now()
FROM (VALUES ('redemption.ordered'), ('redemption.fulfilled')) happened (topic);
COMMIT;
