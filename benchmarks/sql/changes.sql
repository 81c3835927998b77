-- One change per lot instead of one per statement: what single purchases would have left for the fold.
DELETE FROM cohort_change WHERE cause = 'accrual';
INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, month, funding,
                           estimate_class, allocated, residue, issued, expected, expected_millionths, used,
                           used_as_agent, expired, recorded_at)
SELECT uuidv7(), l.cohort_id, b.program_id, l.currency, 'accrual', b.period, l.occurred_at, b.month, b.funding,
       b.estimate_class, l.allocated, l.residue, l.granted, l.expected / 1000000, l.expected % 1000000, 0, 0, 0,
       l.recorded_at
FROM lot l JOIN (SELECT DISTINCT ON (cohort_id) * FROM bench_basket) b USING (cohort_id);
