-- A login by its token, and its administrator. Served by the unique index on the token.
-- :token_hash blob (SHA-256)
select a.admin_id, a.name, a.role, a.language, a.single_keys, a.totp_secret is not null as has_totp,
       a.created_at_ms, a.password_set_at_ms, s.admin_session_id, s.stage, s.address, s.browser,
       s.created_at_ms as session_created_at_ms, s.seen_at_ms, s.proved_at_ms
from admin_sessions s join admins a on a.admin_id = s.admin_id
where s.token_hash = :token_hash;
