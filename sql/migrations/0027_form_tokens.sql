-- Whose forms carry which CSRF token, for longer than the login lasts: a form that is sent after its login has ended is kept for
-- the administrator who filled it.
create table form_tokens (
    token_hash    blob primary key check (length(token_hash) = 32),  -- SHA-256 of the CSRF token
    admin_id      integer not null references admins (admin_id) on delete cascade,
    created_at_ms integer not null
) strict, without rowid;
create index form_token_admin on form_tokens (admin_id);
