-- Everything that has expired, written down by sets: what the job does where nothing is held or pending.
WITH due AS MATERIALIZED (
    SELECT member_id, available + held + pending - debt AS balance, last_entry
    FROM point_account WHERE program_id = :program_id AND next_due_at <= now()
    ORDER BY member_id FOR NO KEY UPDATE
), gone AS MATERIALIZED (
    SELECT l.member_id, l.id AS lot_id, l.expires_at, l.remaining AS points, l.cohort_id, l.currency
    FROM lot l JOIN due USING (member_id)
    WHERE l.remaining > 0 AND l.expires_at <= now()
), expiry AS MATERIALIZED (
    SELECT member_id, expires_at, sum(points) AS points, uuidv7() AS entry_id, uuidv7() AS document_id,
           row_number() OVER earlier AS nth, sum(sum(points)) OVER earlier AS so_far
    FROM gone GROUP BY member_id, expires_at
    WINDOW earlier AS (PARTITION BY member_id ORDER BY expires_at)
), entries AS (
    INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying,
                             lifetime, balance_after, document_id, occurred_at, recorded_at)
    SELECT member_id, entry_id, last_entry + nth, 'expiration', -points, -points, 0, 0, 0, 0, 0, balance - so_far,
           document_id, expires_at, now()
    FROM expiry JOIN due USING (member_id)
), lots AS (
    UPDATE lot SET remaining = 0 FROM gone WHERE lot.member_id = gone.member_id AND lot.id = gone.lot_id
), uses AS (
    INSERT INTO lot_use (member_id, id, entry_id, lot_id, points, effect)
    SELECT member_id, uuidv7(), entry_id, lot_id, gone.points, 'expired'
    FROM gone JOIN expiry USING (member_id, expires_at)
), accounts AS (
    UPDATE point_account a
    SET available = a.available - e.points, last_entry = a.last_entry + e.entries,
        next_due_at = (SELECT min(expires_at) FROM lot
                       WHERE lot.member_id = a.member_id AND remaining > 0 AND expires_at > now())
    FROM (SELECT member_id, sum(points) AS points, count(*) AS entries FROM expiry GROUP BY member_id) e
    WHERE a.member_id = e.member_id
), changes AS (
    INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, allocated, residue,
                               issued, expected, expected_millionths, used, used_as_agent, expired, recorded_at)
    SELECT uuidv7(), cohort_id, :program_id, currency, 'expiry',
           date_trunc('month', expires_at AT TIME ZONE :zone)::date, max(expires_at), 0, 0, 0, 0, 0, 0, 0,
           sum(points), now()
    FROM gone GROUP BY cohort_id, currency, date_trunc('month', expires_at AT TIME ZONE :zone)
)
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
SELECT uuidv7(), :program_id, 'points.expired', member_id,
       jsonb_build_object('entry_id', entry_id::text, 'points', points,
                          'expired_at', to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')),
       now()
FROM expiry;
