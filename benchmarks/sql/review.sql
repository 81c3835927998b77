-- Everybody whose year has ended, in the tier that year's purchases are enough for: what the job does where nobody has
-- bought anything since, and nothing was decided.
WITH year AS MATERIALIZED (
    SELECT date_trunc('year', now() AT TIME ZONE :zone) AT TIME ZONE :zone AS begins_at,
           (date_trunc('year', now() AT TIME ZONE :zone) + interval '1 year') AT TIME ZONE :zone AS ends_at
), due AS MATERIALIZED (
    SELECT m.member_id, m.tier, m.counted_from FROM member_tier m JOIN point_account USING (member_id)
    WHERE m.program_id = :program_id AND m.review_at <= now() ORDER BY m.member_id FOR NO KEY UPDATE
), reached AS MATERIALIZED (
    SELECT member_id, due.tier AS before,
           CASE WHEN sum(spend) >= 400000 THEN 'tier_5' WHEN sum(spend) >= 200000 THEN 'tier_4'
                WHEN sum(spend) >= 100000 THEN 'tier_3' WHEN sum(spend) >= 50000 THEN 'tier_2'
                WHEN sum(spend) >= 10000 THEN 'tier_1' END AS after
    FROM due JOIN qualifying_entry q USING (member_id), year
    WHERE q.counted_at >= due.counted_from AND q.counted_at < year.begins_at
    GROUP BY member_id, due.tier
), standings AS (
    UPDATE member_tier m
    SET tier = r.after, earned = r.after, points = 0, spend = 0, visits = 0, units = 0,
        reached_at = year.begins_at,
        since = CASE WHEN r.after IS DISTINCT FROM r.before THEN year.begins_at ELSE m.since END,
        earned_since = CASE WHEN r.after IS DISTINCT FROM r.before THEN year.begins_at ELSE m.earned_since END,
        begins_at = CASE WHEN r.after IS DISTINCT FROM r.before THEN year.begins_at ELSE m.begins_at END,
        counted_from = year.begins_at, sums_until = year.ends_at,
        review_at = CASE WHEN r.after IS NULL THEN NULL ELSE year.ends_at END, recorded_at = now()
    FROM reached r, year WHERE m.member_id = r.member_id
), changes AS (
    INSERT INTO tier_change (id, program_id, member_id, from_tier, to_tier, why, terms_id, changed_at, recorded_at)
    SELECT uuidv7(), :program_id, r.member_id, before, after, 'review', m.terms_id, year.begins_at, now()
    FROM reached r JOIN member_tier m USING (member_id), year WHERE before IS DISTINCT FROM after
)
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
SELECT uuidv7(), :program_id, 'member.tier_downgraded', member_id,
       jsonb_build_object('from', before, 'to', after, 'why', 'review',
                          'at', to_char(year.begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')),
       now()
FROM reached, year WHERE before IS DISTINCT FROM after;
