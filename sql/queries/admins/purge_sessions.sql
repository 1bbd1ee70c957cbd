-- Logins that are over.
-- :created_ms, :seen_ms, :half_ms integer (Unix ms): older ones are over; a half one was made before :half_ms
-- scan ok: a handful, once an hour
delete from admin_sessions
where created_at_ms <= :created_ms or seen_at_ms <= :seen_ms or (stage = 'password' and created_at_ms <= :half_ms);
