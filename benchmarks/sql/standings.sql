-- Members who have bought through last year, from 5.00 to some thousand, and stood in the highest tier when it ended.
WITH year AS (
    SELECT date_trunc('year', now() AT TIME ZONE :zone) AT TIME ZONE :zone AS ends_at,
           (date_trunc('year', now() AT TIME ZONE :zone) - interval '1 year') AT TIME ZONE :zone AS begins_at
), terms AS (
    SELECT id FROM program_terms WHERE program_id = :program_id AND published_at IS NOT NULL ORDER BY version DESC LIMIT 1
), numbered AS (
    SELECT id AS member_id, row_number() OVER (ORDER BY id) AS number FROM member WHERE program_id = :program_id
), entries AS (
    INSERT INTO qualifying_entry (member_id, document_id, points, spend, visits, units, counted_at, occurred_at,
                                  recorded_at)
    SELECT member_id, uuidv7(), 1 + number % 7, 25 * (number % 1000), 1, 0, at, at, at
    FROM numbered, year, generate_series(1, :entries) AS n,
         LATERAL (SELECT begins_at + n * (ends_at - begins_at) / (:entries + 2) AS at) AS moment
), changes AS (
    INSERT INTO tier_change (id, program_id, member_id, from_tier, to_tier, why, document_id, terms_id, changed_at,
                             recorded_at)
    SELECT uuidv7(), :program_id, member_id, NULL, 'tier_5', 'earned', member_id, terms.id, begins_at, begins_at
    FROM numbered, year, terms
)
INSERT INTO member_tier (member_id, program_id, terms_id, tier, since, earned, earned_since, begins_at, points, spend,
                         visits, units, reached_at, counted_from, sums_until, review_at, decided, recorded_at)
SELECT member_id, :program_id, terms.id, 'tier_5', begins_at, 'tier_5', begins_at, begins_at,
       :entries * (1 + number % 7), :entries * 25 * (number % 1000), :entries, 0,
       begins_at + :entries * (ends_at - begins_at) / (:entries + 2), begins_at, ends_at, ends_at, false,
       begins_at + :entries * (ends_at - begins_at) / (:entries + 2)
FROM numbered, year, terms;
