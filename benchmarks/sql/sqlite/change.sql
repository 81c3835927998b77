-- What purchases of one cohort, committed together, leave for its next fold.
INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, month, funding,
                           estimate_class, allocated, residue, issued, expected, expected_millionths, used,
                           used_as_agent, expired, recorded_at)
VALUES (:change_id, :cohort_id, :program_id, :currency, 'accrual', :period, :occurred_at, :month, :funding,
        :estimate_class, :allocated, :residue, :points, :expected / 1000000, :expected % 1000000, 0, 0, 0, :now);
