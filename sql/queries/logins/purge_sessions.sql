-- Deletes expired logins.
-- :created_ms, :seen_ms integer (Unix ms): logins created or last used before are expired
-- :incomplete_ms integer (Unix ms): the same for logins that wait for their second factor, by creation
-- scan ok: few rows, once an hour
delete from admin_sessions
where created_at_ms <= :created_ms or seen_at_ms <= :seen_ms or (stage = 'password' and created_at_ms <= :incomplete_ms);
