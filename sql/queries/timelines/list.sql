-- The timelines of a database, the first one first.
-- scan ok: a row for each time that a standby took over
select identity, began_at_ms, continues_ms from timelines order by timeline;
