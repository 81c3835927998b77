-- Purchases number :lowest to :highest by sets, in one statement: the baskets of bench_basket in turns,
-- of members in turn; a member may come more than once.
\set step :step + 1
\set lowest :first + (:step * :clients + :client_id) * :size
\set highest :lowest + :size - 1
WITH item AS MATERIALIZED (
    SELECT n, b.*, uuidv7() AS transaction_id, uuidv7() AS entry_id, :prefix || lpad(n::text, 12, '0') AS external_id,
           lpad(((n * 7919) % :members::bigint + 1)::text, 12, '0') AS card
    FROM generate_series(:lowest::bigint, :highest::bigint) n JOIN bench_basket b ON b.basket = :after::bigint + n % :baskets::bigint + 1
), taken AS (
    INSERT INTO transaction_key (program_id, source, external_id, type, transaction_id)
    SELECT program_id, source, external_id, 'purchase', transaction_id FROM item ORDER BY source, external_id
    ON CONFLICT DO NOTHING
    RETURNING transaction_id
), account AS MATERIALIZED (
    SELECT a.member_id, i.value AS card, a.available + a.held + a.pending - a.debt AS balance, a.last_entry
    FROM member_identifier i JOIN member m ON m.id = i.member_id JOIN point_account a ON a.member_id = m.id
    WHERE i.program_id = :program_id AND i.kind = 'card' AND i.value IN (SELECT card FROM item)
      AND m.status IN ('active', 'earn_only')
    ORDER BY a.member_id FOR NO KEY UPDATE OF a
), decided AS MATERIALIZED (
    SELECT *, row_number() OVER earlier AS nth, sum(points) OVER earlier AS so_far
    FROM item JOIN taken USING (transaction_id) JOIN account USING (card)
    WINDOW earlier AS (PARTITION BY member_id ORDER BY n)
), transactions AS (
    INSERT INTO transaction (id, program_id, type, source, external_id, fingerprint, member_id, enrolled, terms_id,
                             store, occurred_at, recorded_at, currency, total, points, claimable, content, reasons,
                             shares)
    SELECT transaction_id, program_id, 'purchase', source, external_id, fingerprint, member_id, false, terms_id,
           store, occurred_at, now(), currency, total, points, 0, content::jsonb, reasons::jsonb, shares::jsonb
    FROM decided
), entries AS (
    INSERT INTO point_entry (member_id, id, number, kind, points, available, held, pending, debt, qualifying,
                             lifetime, balance_after, document_id, occurred_at, recorded_at)
    SELECT member_id, entry_id, last_entry + nth, 'accrual', points, points, 0, 0, 0, points, points, balance + so_far,
           transaction_id, occurred_at, now()
    FROM decided
), lots AS (
    INSERT INTO lot (member_id, id, entry_id, granted, remaining, held, pending, available_from, expires_at, lapses,
                     cohort_id, currency, funding, allocated, residue, expected, document_id, occurred_at, recorded_at)
    SELECT member_id, uuidv7(), entry_id, points, points, 0, false, available_from, expires_at, false, cohort_id,
           currency, funding, allocated, residue, expected, transaction_id, occurred_at, now()
    FROM decided
), accounts AS (
    UPDATE point_account a
    SET available = a.available + d.points, qualifying = a.qualifying + d.points, lifetime = a.lifetime + d.points,
        last_entry = a.last_entry + d.entries, next_due_at = least(a.next_due_at, d.expires_at)
    FROM (SELECT member_id, sum(points) AS points, count(*) AS entries, min(expires_at) AS expires_at
          FROM decided GROUP BY member_id) d
    WHERE a.member_id = d.member_id
), changes AS (
    INSERT INTO cohort_change (id, cohort_id, program_id, currency, cause, period, occurred_at, month, funding,
                               estimate_class, allocated, residue, issued, expected, expected_millionths, used,
                               used_as_agent, expired, recorded_at)
    SELECT uuidv7(), cohort_id, program_id, currency, 'accrual', period, max(occurred_at), month, funding,
           estimate_class, sum(allocated), sum(residue), sum(points), div(sum(expected), 1000000),
           mod(sum(expected), 1000000), 0, 0, 0, now()
    FROM decided
    GROUP BY cohort_id, program_id, currency, period, month, funding, estimate_class
), postings AS (
    INSERT INTO journal_posting (id, program_id, debit, credit, amount, currency, cause, cohort_id, document_id,
                                 occurred_at, recorded_at, period)
    SELECT uuidv7(), program_id, debit, credit, allocated, currency, 'accrual', cohort_id, transaction_id,
           occurred_at, now(), period
    FROM decided
)
INSERT INTO outbox (id, program_id, topic, member_id, payload, recorded_at)
SELECT uuidv7(), program_id, 'transaction.recorded', member_id,
       jsonb_build_object('transaction_id', transaction_id::text, 'type', 'purchase', 'points', points,
                          'claimable', 0), now()
FROM decided;
