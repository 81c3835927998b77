-- What a purchase under tiers reads and writes besides, where it moves nobody: before its COMMIT.
SELECT tier, since, reached_at, counted_from, sums_until, review_at, points AS counted_points, spend AS counted_spend
FROM member_tier WHERE member_id = :member_id \gset
INSERT INTO qualifying_entry (member_id, document_id, points, spend, visits, units, counted_at, occurred_at,
                              recorded_at)
VALUES (:member_id, :transaction_id, :points, (:reasons::jsonb -> 0 ->> 'base')::bigint, 1, 0, :occurred_at,
        :occurred_at, now());
UPDATE member_tier
SET points = points + :points::bigint, spend = spend + (:reasons::jsonb -> 0 ->> 'base')::bigint, visits = visits + 1,
    reached_at = :occurred_at, recorded_at = now()
WHERE member_id = :member_id;
