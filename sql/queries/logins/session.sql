-- A login by its token. Served by the unique index on the token.
-- :token_hash blob (SHA-256)
select admin_session_id, admin_id, stage, address, browser, created_at_ms as session_created_at_ms, seen_at_ms, proved_at_ms
from admin_sessions where token_hash = :token_hash;
