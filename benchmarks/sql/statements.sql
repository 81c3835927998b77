-- Every member's statement of a month that is over, as JSON: opening and closing as known at their instants, movements,
-- and when what was left expires. From what never changes, so that it comes to the same for ever. What had expired and
-- was not written down is counted; other things that were due (activations, ends of holds) are left to the service.
WITH who AS MATERIALIZED (
    SELECT id AS member_id FROM member WHERE program_id = :program_id AND enrolled_at < :ends_at::timestamptz
), cut AS MATERIALIZED (
    SELECT member_id, min(number) FILTER (WHERE recorded_at >= :begins_at::timestamptz) AS after_opening,
           min(number) FILTER (WHERE recorded_at >= :ends_at::timestamptz) AS after_closing
    FROM point_entry JOIN who USING (member_id) GROUP BY member_id
), known AS MATERIALIZED (
    SELECT member_id, id, number, kind, points, available, held, pending, debt, balance_after, lapses_at, document_id,
           occurred_at, after_opening IS NULL OR number < after_opening AS at_opening
    FROM point_entry JOIN cut USING (member_id) WHERE after_closing IS NULL OR number < after_closing
), figures AS MATERIALIZED (
    SELECT member_id, max(number) AS last_entry, coalesce(max(number) FILTER (WHERE at_opening), 0) AS last_then,
           max(lapses_at) AS lapses_at, sum(available) AS available, sum(held) AS held, sum(pending) AS pending,
           sum(debt) AS debt, coalesce(sum(available) FILTER (WHERE at_opening), 0) AS available_then,
           coalesce(sum(held) FILTER (WHERE at_opening), 0) AS held_then,
           coalesce(sum(pending) FILTER (WHERE at_opening), 0) AS pending_then,
           coalesce(sum(debt) FILTER (WHERE at_opening), 0) AS debt_then
    FROM known GROUP BY member_id
), used AS (
    SELECT u.member_id, u.lot_id, sum(u.points) AS points, sum(u.points) FILTER (WHERE k.at_opening) AS points_then
    FROM lot_use u JOIN known k ON k.member_id = u.member_id AND k.id = u.entry_id
    GROUP BY u.member_id, u.lot_id
), ending AS (
    SELECT member_id, document_id, bool_or(at_opening) AS at_opening
    FROM known WHERE kind IN ('capture', 'release') GROUP BY member_id, document_id
), reserved AS (
    SELECT p.member_id, p.lot_id, sum(p.points) FILTER (WHERE ending.member_id IS NULL) AS points,
           sum(p.points) FILTER (WHERE k.at_opening AND ending.at_opening IS NOT TRUE) AS points_then
    FROM known k JOIN hold h ON h.member_id = k.member_id AND h.entry_id = k.id
    JOIN hold_lot p ON p.member_id = h.member_id AND p.hold_id = h.id
    LEFT JOIN ending ON ending.member_id = h.member_id AND ending.document_id = h.id
    WHERE k.kind = 'hold'
    GROUP BY p.member_id, p.lot_id
), step AS MATERIALIZED (
    SELECT l.member_id, CASE WHEN l.lapses THEN f.lapses_at ELSE l.expires_at END AS expires_at,
           sum(l.granted - coalesce(u.points, 0)) AS points, coalesce(sum(r.points), 0) AS held,
           sum(l.granted - coalesce(u.points_then, 0)) FILTER (WHERE k.at_opening)
               - coalesce(sum(r.points_then), 0) AS free_then
    FROM known k JOIN lot l ON l.member_id = k.member_id AND l.entry_id = k.id
    JOIN figures f ON f.member_id = l.member_id
    LEFT JOIN used u ON u.member_id = l.member_id AND u.lot_id = l.id
    LEFT JOIN reserved r ON r.member_id = l.member_id AND r.lot_id = l.id
    WHERE l.granted > coalesce(u.points, 0) OR (k.at_opening AND l.granted > coalesce(u.points_then, 0))
    GROUP BY 1, 2
), ladder AS MATERIALIZED (
    SELECT member_id,
           coalesce(json_agg(json_build_object('points', left_over, 'at', expires_at) ORDER BY expires_at)
                    FILTER (WHERE expires_at IS NOT NULL AND left_over > 0), '[]') AS expiring,
           coalesce(sum(left_over) FILTER (WHERE expires_at IS NULL), 0) AS stay, sum(points - left_over) AS expired,
           coalesce(sum(free_then) FILTER (WHERE expires_at < :begins_at::timestamptz), 0) AS expired_then,
           count(*) FILTER (WHERE expires_at < :begins_at::timestamptz AND free_then > 0) AS due_then
    FROM (SELECT *, CASE WHEN expires_at < :ends_at::timestamptz THEN held ELSE points END AS left_over FROM step) s
    GROUP BY member_id
), moved AS (
    SELECT member_id, number, kind, points, available, held, pending, debt, balance_after, occurred_at
    FROM known WHERE NOT at_opening
    UNION ALL
    SELECT s.member_id, f.last_entry + row_number() OVER earlier, 'expiration', s.held - points, s.held - points, 0, 0,
           0,
           f.available + f.held + f.pending - f.debt - sum(points - s.held) OVER earlier, expires_at
    FROM step s JOIN figures f USING (member_id)
    WHERE expires_at < :ends_at::timestamptz AND points > s.held
    WINDOW earlier AS (PARTITION BY s.member_id ORDER BY expires_at)
), movement AS (
    SELECT member_id, json_agg(json_build_object(
               'number', number, 'kind', kind, 'points', points, 'available', moved.available, 'held', moved.held,
               'pending', moved.pending, 'debt', moved.debt, 'balance_after', balance_after,
               'late', occurred_at < :begins_at::timestamptz, 'occurred_at', occurred_at) ORDER BY number) AS movements
    FROM moved JOIN figures USING (member_id) LEFT JOIN ladder USING (member_id)
    WHERE number > last_then + coalesce(due_then, 0)
    GROUP BY member_id
)
SELECT json_build_object(
    'member_id', w.member_id, 'month', :month::text, 'begins_at', :begins_at::timestamptz,
    'at', :ends_at::timestamptz - interval '1 microsecond', 'provisional', false,
    'opening', json_build_object('available', coalesce(available_then - coalesce(expired_then, 0), 0),
                                 'held', coalesce(held_then, 0), 'pending', coalesce(pending_then, 0),
                                 'debt', coalesce(debt_then, 0)),
    'opening_balance',
        coalesce(available_then + held_then + pending_then - debt_then - coalesce(expired_then, 0), 0),
    'movements', coalesce(movements, '[]'),
    'closing', json_build_object('available', coalesce(available - coalesce(expired, 0), 0),
                                 'held', coalesce(held, 0), 'pending', coalesce(pending, 0), 'debt', coalesce(debt, 0)),
    'closing_balance', coalesce(available + held + pending - debt - coalesce(expired, 0), 0),
    'expiring', coalesce(expiring, '[]'), 'stay', coalesce(stay, 0)) AS statement
FROM who w LEFT JOIN figures USING (member_id) LEFT JOIN ladder USING (member_id) LEFT JOIN movement USING (member_id)
ORDER BY w.member_id;
