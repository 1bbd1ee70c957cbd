-- Stores that an administrator has logged in from a browser. Served by the primary key.
-- :token_hash blob (SHA-256), :admin_id integer, :now_ms integer (Unix ms)
insert into known_browsers (token_hash, admin_id, seen_at_ms) values (:token_hash, :admin_id, :now_ms)
on conflict (token_hash, admin_id) do update set seen_at_ms = excluded.seen_at_ms;
