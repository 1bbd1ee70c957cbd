-- Adds a timeline after all others.
-- :identity blob, :began_at_ms, :continues_ms integer (Unix ms)
insert into timelines (identity, began_at_ms, continues_ms) values (:identity, :began_at_ms, :continues_ms);
