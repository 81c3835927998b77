-- Past for the members who have more than a few entries: each entry five days after the one before, the last is now.
ALTER TABLE lot DISABLE TRIGGER USER;
ALTER TABLE point_entry DISABLE TRIGGER USER;
UPDATE lot l
SET occurred_at = l.occurred_at - age, available_from = l.available_from - age, recorded_at = l.recorded_at - age
FROM (SELECT e.member_id, e.id, (a.last_entry - e.number) * interval '5 days' AS age
      FROM point_entry e JOIN point_account a USING (member_id)) e
WHERE e.member_id = l.member_id AND e.id = l.entry_id;
UPDATE point_entry e SET occurred_at = e.occurred_at - age, recorded_at = e.recorded_at - age
FROM (SELECT e.member_id, e.id, (a.last_entry - e.number) * interval '5 days' AS age
      FROM point_entry e JOIN point_account a USING (member_id)) older
WHERE older.member_id = e.member_id AND older.id = e.id;
ALTER TABLE lot ENABLE TRIGGER USER;
ALTER TABLE point_entry ENABLE TRIGGER USER;
UPDATE member m SET enrolled_at = m.enrolled_at - interval '1 year'
WHERE EXISTS (SELECT FROM point_account a WHERE a.member_id = m.id AND a.last_entry > 5);
UPDATE program SET created_at = created_at - interval '1 year';
