-- What the service decided for each basket that was posted to it: what hand-written SQL writes for the same basket.
-- Behind the real ones: a large one, which gives members points to spend, and one whose points have expired.
SELECT row_number() OVER (ORDER BY t.source, length(CAST(t.content AS text)), t.id) AS basket,
       t.program_id, t.terms_id, t.source, t.fingerprint, t.store, t.occurred_at, t.currency, t.total, t.points,
       CAST(t.content AS text) AS content, CAST(t.reasons AS text) AS reasons, CAST(t.shares AS text) AS shares,
       l.available_from, l.expires_at, l.cohort_id, l.funding, l.allocated, l.residue, l.expected,
       p.debit, p.credit, p.period, c.month, c.estimate_class
FROM "transaction" t
JOIN lot l ON l.document_id = t.id
JOIN journal_posting p ON p.document_id = t.id
JOIN (SELECT DISTINCT cohort_id, month, estimate_class FROM cohort_change WHERE cause = 'accrual') c
  ON c.cohort_id = l.cohort_id
WHERE t.source IN ('bench', 'bench-large', 'bench-old')
