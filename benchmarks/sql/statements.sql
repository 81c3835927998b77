-- The statements of one month for members number 1 to :members: opening, movements, closing, when points expire.
SELECT m.id AS member_id, p.name, coalesce(o.balance, 0) AS opening, coalesce(e.movements, '[]') AS movements,
       coalesce(o.balance, 0) + coalesce(e.change, 0) AS closing, l.ladder
FROM member m
LEFT JOIN member_profile p ON p.member_id = m.id
LEFT JOIN LATERAL (
    SELECT sum(points) AS balance FROM point_entry
    WHERE member_id = m.id AND recorded_at < :begins_at::timestamptz
) o ON true
LEFT JOIN LATERAL (
    SELECT sum(points) AS change, jsonb_agg(to_jsonb(point_entry) ORDER BY number) AS movements FROM point_entry
    WHERE member_id = m.id AND recorded_at >= :begins_at::timestamptz AND recorded_at <= now()
) e ON true
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(coalesce(expires_at::text, 'stay'), points) AS ladder
    FROM (SELECT expires_at, sum(remaining) AS points FROM lot
          WHERE member_id = m.id AND remaining > 0 GROUP BY expires_at) step
) l ON true
WHERE m.id IN (SELECT (:prefix || lpad(n::text, 12, '0'))::uuid FROM generate_series(1, :members::bigint) n);
