-- One hold of points for two hours: the rows that the service writes, and the reads that they need.
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
SELECT id AS lot_id FROM lot
WHERE member_id = :member_id AND remaining - held >= :points::bigint AND NOT pending AND expires_at > now()
ORDER BY expires_at, occurred_at, id LIMIT 1 \gset
INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying, lifetime,
                         balance_after, document_id, occurred_at, recorded_at)
VALUES (:member_id, uuidv7(), :last_entry::bigint + 1, 'hold', 0, - :points::bigint, :points, 0, 0, 0, 0, :balance,
        uuidv7(), now(), now())
RETURNING id AS entry_id, document_id AS hold_id \gset
UPDATE lot SET held = held + :points::bigint WHERE member_id = :member_id AND id = :lot_id;
INSERT INTO hold (member_id, id, program_id, entry_id, points, ends_at, status, captured, occurred_at, recorded_at)
VALUES (:member_id, :hold_id, :program_id, :entry_id, :points, now() + interval '2 hours', 'open', 0, now(), now());
INSERT INTO hold_lot (member_id, hold_id, lot_id, points) VALUES (:member_id, :hold_id, :lot_id, :points);
INSERT INTO hold_request (member_id, hold_id, client_id) VALUES (:member_id, :hold_id, :client);
UPDATE point_account
SET available = available - :points::bigint, held = held + :points::bigint, last_entry = last_entry + 1,
    next_due_at = least(next_due_at, now() + interval '2 hours')
WHERE member_id = :member_id;
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
VALUES (uuidv7(), :program_id, 'hold.created', :member_id,
        jsonb_build_object('hold_id', :hold_id::text, 'points', :points::bigint), now());
COMMIT;
