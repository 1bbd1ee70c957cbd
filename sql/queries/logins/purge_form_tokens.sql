-- Deletes the CSRF tokens of logins that were created long ago.
-- :created_ms integer (Unix ms)
-- scan ok: few rows, once an hour
delete from form_tokens where created_at_ms <= :created_ms;
