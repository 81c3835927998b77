-- All waiting accruals of a programme, added to their cohorts by sets. They release nothing, so nothing is posted.
WITH taken AS (
    DELETE FROM cohort_change WHERE program_id = :program_id AND cause = 'accrual' RETURNING *
), added AS (
    SELECT cohort_id, program_id, currency, month, funding, estimate_class, sum(allocated) AS allocated,
           sum(residue) AS residue, sum(issued) AS issued,
           sum(expected::numeric * 1000000 + expected_millionths) AS expected
    FROM taken GROUP BY cohort_id, program_id, currency, month, funding, estimate_class
)
INSERT INTO cohort AS c (id, program_id, currency, month, funding, estimate_class, allocated, residue, issued, expected,
                         expected_millionths, used, expired, recognised, estimate)
SELECT cohort_id, program_id, currency, month, funding, estimate_class, allocated, residue, issued,
       div(expected, 1000000), mod(expected, 1000000), 0, 0, 0, '1'
FROM added
ON CONFLICT (id) DO UPDATE
SET allocated = c.allocated + excluded.allocated, residue = c.residue + excluded.residue,
    issued = c.issued + excluded.issued,
    expected = c.expected + excluded.expected + (c.expected_millionths + excluded.expected_millionths) / 1000000,
    expected_millionths = (c.expected_millionths + excluded.expected_millionths) % 1000000;
